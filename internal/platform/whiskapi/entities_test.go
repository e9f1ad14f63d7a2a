// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/points"
)

// Contract 9.2 and 1.6: the life of an action.
func TestActions(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.ask("GET", "actions/a", "").says(404, "The requested resource does not exist.")
		w.ask("PUT", "actions/a", `{}`).says(400, "exec undefined")
		created := w.ask("PUT", "actions/a", `{`+actExec+`,"namespace":"ignored","name":"ignored",
			"parameters":[{"key":"n","value":1},{"key":"s","value":"x","init":true}],"annotations":[{"key":"k","value":[1]}]}`).want(200).object()
		want := `{"namespace":"guest","name":"a","version":"0.0.1","publish":false,
			"exec":{"kind":"blackbox","image":"test/act:1","binary":false},
			"parameters":[{"key":"n","value":1},{"key":"s","value":"x","init":true}],
			"annotations":[{"key":"k","value":[1]},{"key":"provide-api-key","value":false},{"key":"exec","value":"blackbox"}],
			"limits":{"timeout":60000,"memory":256,"logs":10,"concurrency":1},"updated":` + fmt.Sprint(int64(created["updated"].(float64))) + `}`
		w.ask("GET", "actions/a", "").want(200).is(want)

		w.ask("PUT", "actions/a", `{`+actExec+`}`).says(409, "resource already exists")
		time.Sleep(time.Second)
		// Only what is given changes; limits and annotations are merged.
		updated := w.ask("PUT", "actions/a?overwrite=true", `{"limits":{"memory":128,"logs":null},"annotations":[{"key":"k2","value":2}],"delAnnotations":["k"]}`).want(200).object()
		if updated["version"] != "0.0.2" || at(t, updated, "limits", "memory") != 128.0 || at(t, updated, "limits", "timeout") != 60000.0 ||
			len(updated["parameters"].([]any)) != 2 || annotation(t, updated, "k") != nil || annotation(t, updated, "k2") != 2.0 ||
			annotation(t, updated, "exec") != "blackbox" {
			t.Errorf("updated: %v", updated)
		}
		w.ask("PUT", "actions/a?overwrite=true", `{"version":"1.2.3","publish":true,"parameters":[]}`).want(200)
		last := w.ask("PUT", "actions/a?overwrite=true", `{}`).want(200).object()
		if last["version"] != "1.2.4" || last["publish"] != true || len(last["parameters"].([]any)) != 0 {
			t.Errorf("updated: %v", last)
		}

		time.Sleep(time.Second)
		w.deploy("b", "")
		list := w.ask("GET", "actions", "").want(200).list()
		if len(list) != 2 || list[0]["name"] != "b" || list[0]["exec"].(map[string]any)["binary"] != false || list[0]["parameters"] != nil {
			t.Errorf("list: %v", list)
		}
		w.ask("GET", "actions?count=true", "").is(`{"actions":2}`)
		if page := w.ask("GET", "actions?limit=1&skip=1", "").list(); len(page) != 1 || page[0]["name"] != "a" {
			t.Errorf("second page: %v", page)
		}
		w.ask("DELETE", "actions/a", "").want(200)
		w.ask("DELETE", "actions/a", "").says(404, "The requested resource does not exist.")
	})
}

// Contract 9.2 and 1.6: what an action can be.
func TestExec(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		const head = "The request content was malformed:\n"
		for _, c := range []struct{ exec, text string }{
			{`1`, head + "JSON object expected"},
			{`{"kind":"blackbox","image":"Bad Name"}`, head + "could not parse image name"},
			{`{"kind":"blackbox","image":"a:b:c"}`, head + "could not parse image name"},
			{`{"kind":"nope:1","code":""}`, head + "The specified runtime 'nope:1' is not supported by this platform. Valid values are: 'blackbox', 'sequence', 'test:0', 'test:1'."},
			{`{"kind":"test:0","code":""}`, "The 'test:0' runtime is no longer supported. You may read and delete but not update or invoke this action."},
		} {
			w.ask("PUT", "actions/a", `{"exec":`+c.exec+`}`).says(400, c.text)
		}
		w.ask("PUT", "actions/a", `{"exec":{"kind":"sequence","components":[]}}`).want(501)
		for i, c := range []struct{ exec, want string }{
			{`{"kind":" Test:Default ","code":"plain text"}`, `{"kind":"test:1","code":"plain text","binary":false}`},
			// Whether code is binary is seen from the text, not told.
			{`{"kind":"test:1","code":"UEsDBA==","binary":false,"main":"m"}`, `{"kind":"test:1","code":"UEsDBA==","binary":true,"main":"m"}`},
			{`{"kind":"blackbox","image":"r.example:5000/a/b:t@sha256:` + strings.Repeat("a", 64) + `","code":" "}`, `{"kind":"blackbox","image":"r.example:5000/a/b:t","binary":false}`},
			{`{"kind":"blackbox","image":"b","code":"abc"}`, `{"kind":"blackbox","image":"b","code":"abc","binary":false}`},
		} {
			name := fmt.Sprint("x", i)
			w.ask("PUT", "actions/"+name, `{"exec":`+c.exec+`}`).want(200)
			if got := encode(w.ask("GET", "actions/"+name, "").object()["exec"]); !sameJSON(got, []byte(c.want)) {
				t.Errorf("exec is %s, want %s", got, c.want)
			}
			if _, there := w.ask("GET", "actions/"+name+"?code=false", "").object()["exec"].(map[string]any)["code"]; there {
				t.Errorf("code=false shows the code")
			}
		}
	})
}

// Contract 9.2 and 3.2: limits outside their range, in the words of both
// generations.
func TestLimitTexts(t *testing.T) {
	const head = "The request content was malformed:\n"
	for _, generation := range []Generation{V1, V2} {
		inWorld(t, func(c *Config, _ *poolConfig) { c.Generation = generation }, func(w *world) {
			for _, c := range []struct{ limits, v1, v2 string }{
				{`{"memory":1024}`, "memory 1024 MB exceeds allowed threshold of 536870912 B", "memory size 1024 MB exceeds allowed threshold of 512 MB"},
				{`{"memory":64}`, "memory 64 MB below allowed threshold of 134217728 B", "memory size 64 MB below allowed threshold of 128 MB"},
				{`{"timeout":600000}`, "duration 600000 milliseconds exceeds allowed threshold of 300000 milliseconds", "duration 600000 milliseconds exceeds allowed threshold of 300000 milliseconds"},
				{`{"timeout":10}`, "duration 10 milliseconds below allowed threshold of 100 milliseconds", "duration 10 milliseconds below allowed threshold of 100 milliseconds"},
				{`{"logs":20}`, "log size 20 MB exceeds allowed threshold of 10485760 B", "log size 20 MB exceeds allowed threshold of 10 MB"},
				{`{"concurrency":10}`, "concurrency 10 exceeds allowed threshold of 1", "concurrency 10 exceeds allowed threshold of 1"},
			} {
				want := "requirement failed: " + c.v2
				if generation == V1 {
					want = head + "requirement failed: " + c.v1
				}
				w.ask("PUT", "actions/a", `{`+actExec+`,"limits":`+c.limits+`}`).says(400, want)
			}
			for limits, text := range map[string]string{
				`{"memory":1.5}`:      "requirement failed: memory limit must be whole number",
				`{"timeout":.5}`:      "", // no JSON
				`{"memory":"x"}`:      "memory limit malformed",
				`{"concurrency":"x"}`: "concurrency limit malformed",
				`{"memory":-1}`:       "requirement failed: a negative size of an object is not allowed.",
			} {
				answer := w.ask("PUT", "actions/a", `{`+actExec+`,"limits":`+limits+`}`).want(400)
				if text != "" {
					answer.says(400, head+text)
				}
			}
			w.ask("PUT", "actions/a", `{`+actExec+`,"limits":{"memory":512,"timeout":300000,"logs":0,"concurrency":1,"unknown":7}}`).want(200)
			w.ask("PUT", "actions/b", `{`+actExec+`,"limits":{"memory":1e99999999}}`).want(400)
		})
	}
}

// Contract 9.2 and 1.6: what is too large is refused with 413.
func TestSizes(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		text := `"` + strings.Repeat("x", 1<<20) + `"`
		w.ask("PUT", "actions/a", `{`+actExec+`,"parameters":[{"key":"k","value":`+text+`}]}`).says(413, "parameters larger than allowed: 1048579 > 1048576 bytes.")
		w.ask("PUT", "packages/p", `{"annotations":[{"key":"k","value":`+text+`}]}`).says(413, "annotations larger than allowed: 1048579 > 1048576 bytes.")
		if points.Stride == 1 { // reading so much takes the race detector a quarter of a minute
			code := strings.Repeat("x", 48<<20)
			w.ask("PUT", "actions/a", `{"exec":{"kind":"test:1","code":"`+code+`","main":"m"}}`).says(413, "exec larger than allowed: 50331649 > 50331648 bytes.")
		}
		for _, bad := range []string{`{}`, `[{"value":1}]`, `[{"key":"k"}]`, `[1]`} {
			w.ask("PUT", "packages/p", `{"parameters":`+bad+`}`).says(400, "The request content was malformed:\nparameters malformed!")
		}
	})
	inWorld(t, func(c *Config, _ *poolConfig) { c.PackageMax, c.ActionMax, c.EntityBytesMax = 1, 2, 2000 }, func(w *world) {
		w.ask("PUT", "packages/p", `{}`).want(200)
		w.ask("PUT", "packages/q", `{}`).want(413)
		w.deploy("a", "")
		w.deploy("b", "")
		w.ask("PUT", "actions/c", `{`+actExec+`}`).want(413)
		w.ask("PUT", "actions/a?overwrite=true", `{"exec":{"kind":"test:1","code":"`+strings.Repeat("x", 2000)+`"}}`).want(413)
		w.ask("DELETE", "actions/a", "").want(200)
		w.deploy("c", "")
	})
}

// TestEntityBytes: what is kept is bounded in total, whatever it consists of, and
// what is deleted or made smaller makes room.
func TestEntityBytes(t *testing.T) {
	inWorld(t, func(c *Config, _ *poolConfig) { c.EntityBytesMax = 10000 }, func(w *world) {
		pairs := func(n int) string { return `[{"key":"k","value":"` + strings.Repeat("x", n) + `"}]` }
		for what, c := range map[string]struct{ path, body string }{
			"code":                    {"actions/a", `{"exec":{"kind":"test:1","code":"` + strings.Repeat("x", 6000) + `"}}`},
			"parameters":              {"actions/a", `{` + actExec + `,"parameters":` + pairs(6000) + `}`},
			"annotations":             {"actions/a", `{` + actExec + `,"annotations":` + pairs(6000) + `}`},
			"parameters of package":   {"packages/p", `{"parameters":` + pairs(6000) + `}`},
			"annotations of packages": {"packages/p", `{"annotations":` + pairs(6000) + `}`},
			"tiny ones":               {"packages/p", `{"parameters":[` + numbered(90) + `]}`},
		} {
			again := c.path + "2"
			for range 2 { // what is deleted is no longer counted
				w.ask("PUT", c.path, c.body).want(200)
				w.ask("PUT", c.path+"?overwrite=true", c.body).want(200)
				if refused := w.ask("PUT", again, c.body); refused.status != 413 || !strings.Contains(string(refused.body), "delete some") {
					t.Errorf("%s: twice 6000 bytes in 10000: %d %s", what, refused.status, refused.body)
				}
				w.ask("DELETE", c.path, "").want(200)
			}
			if n := w.server.entities.bytes; n != 0 {
				t.Errorf("%s: %d bytes are counted when nothing is kept", what, n)
			}
		}
		w.ask("PUT", "packages/p", `{"parameters":`+pairs(3000)+`}`).want(200)
		w.ask("PUT", "actions/p/a", `{`+actExec+`,"parameters":`+pairs(5000)+`}`).want(200)
		w.ask("PUT", "packages/p?overwrite=true", `{"parameters":`+pairs(6000)+`}`).want(413)
		w.ask("PUT", "actions/p/a?overwrite=true", `{"parameters":[]}`).want(200)
		w.ask("PUT", "packages/p?overwrite=true", `{"parameters":`+pairs(6000)+`}`).want(200)
		w.ask("DELETE", "packages/p?force=true", "").want(200)
		if n := w.server.entities.bytes; n != 0 {
			t.Errorf("%d bytes are counted when nothing is kept", n)
		}
	})
}

// numbered returns so many small pairs, with different keys.
func numbered(n int) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(`{"key":"%d","value":%d}`, i, i)
	}
	return strings.Join(items, ",")
}

// TestPairs: the number of pairs is bounded, and what is refused is refused
// before it is kept.
func TestPairs(t *testing.T) {
	t.Parallel()
	inWorld(t, nil, func(w *world) {
		most, more := numbered(pairsMax), numbered(pairsMax+1)
		answer := w.ask("PUT", "packages/p", `{"parameters":[`+most+`],"annotations":[`+most+`]}`).want(200).object()
		if n := len(answer["parameters"].([]any)); n != pairsMax {
			t.Errorf("%d parameters are kept, want %d", n, pairsMax)
		}
		for _, field := range []string{"parameters", "annotations"} {
			text := field + " larger than allowed: more than 10000 of them."
			w.ask("PUT", "packages/q", `{"`+field+`":[`+more+`]}`).says(413, text)
			w.ask("PUT", "actions/a", `{`+actExec+`,"`+field+`":[`+more+`]}`).says(413, text)
		}
		// With those that the server adds there are too many.
		w.ask("PUT", "actions/a", `{`+actExec+`,"annotations":[`+most+`]}`).says(413, "annotations larger than allowed: more than 10000 of them.")
		for _, bad := range []string{`{"key":"k","value":1}`, `[{"key":"k","value":1},2]`, `[{"key":" ","value":1}]`, `"x"`} {
			w.ask("PUT", "packages/q", `{"annotations":`+bad+`}`).says(400, "The request content was malformed:\nparameters malformed!")
		}
		twice := w.ask("PUT", "packages/q", `{"parameters":[{"key":"a","value":1},{"key":"b","value": [ 2 ] },{"key":"a","value":3}]}`).want(200).object()
		if got := string(encode(twice["parameters"])); got != `[{"key":"a","value":3},{"key":"b","value":[2]}]` {
			t.Errorf("of two with one key the last counts: %s", got)
		}
	})
}

// TestMerge compares merge and without with what they are to be.
func TestMerge(t *testing.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
	rapid.Check(t, func(t *rapid.T) {
		n := 0
		list := func(name string, unique bool) (pairs []pair) {
			for _, k := range rapid.SliceOfN(key, 0, 8).Draw(t, name) {
				if _, there := find(pairs, k); !there || !unique {
					n++
					pairs = append(pairs, pair{Key: k, Value: encode(n)})
				}
			}
			return pairs
		}
		earlier, later := list("earlier", true), list("later", false)
		var want []pair
		for _, p := range slices.Concat(earlier, later) {
			if i := slices.IndexFunc(want, func(old pair) bool { return old.Key == p.Key }); i >= 0 {
				want[i] = p
			} else {
				want = append(want, p)
			}
		}
		before := slices.Clone(earlier)
		if got := merge(earlier, later); string(encode(got)) != string(encode(want)) || string(encode(earlier)) != string(encode(before)) {
			t.Fatalf("%s and %s make %s, want %s", encode(earlier), encode(later), encode(got), encode(want))
		}
		names := rapid.SliceOf(key).Draw(t, "names")
		for _, p := range without(want, names) {
			if slices.Contains(names, p.Key) {
				t.Fatalf("%s is still there", p.Key)
			}
		}
		if got, gone := len(without(want, names)), len(slices.Compact(slices.Sorted(slices.Values(names)))); got < len(want)-gone {
			t.Fatalf("%d of %d are left without %d names", got, len(want), gone)
		}
	})
}

// What a real 1.0.0 said to bodies of the wrong shape.
func TestMalformed(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		const head = "The request content was malformed:\n"
		for body, text := range map[string]string{
			`{"version":"x"}`:             "semantic version malformed",
			`{"version":1}`:               "semantic version malformed",
			`{"publish":"x"}`:             `Expected JsBoolean, but got "x"`,
			`{"binding":{"name":"p"}}`:    "Object is missing required member 'namespace'",
			`{"binding":{"namespace":1}}`: "Object is missing required member 'name'",
			`{"parameters":1}`:            "parameters malformed!",
			`{"annotations":{"a":1}}`:     "parameters malformed!",
		} {
			w.ask("PUT", "packages/q", body).says(400, head+text)
		}
		w.ask("PUT", "packages/q", `{"publish":"`+strings.Repeat("x", 1000)+`"}`).
			says(400, head+`Expected JsBoolean, but got "`+strings.Repeat("x", 99)+"...")
		for _, limits := range []string{"[]", "1"} {
			w.ask("PUT", "actions/a", `{`+actExec+`,"limits":`+limits+`}`).says(400, head+"Object expected in field 'timeout'")
		}
	})
}

// Contract 9.2 and 1.5: packages.
func TestPackages(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.ask("GET", "packages/p", "").says(404, "The requested resource 'guest/p' does not exist.")
		w.ask("DELETE", "packages/p", "").says(404, "The requested resource does not exist.")
		w.ask("PUT", "actions/p/a", `{`+actExec+`}`).says(404, "The requested resource does not exist.")
		w.ask("PUT", "packages/p", `{"parameters":[{"key":"x","value":1},{"key":"y","value":1}],"annotations":[{"key":"k","value":1}]}`).want(200)
		w.ask("PUT", "packages/p", `{}`).says(409, "resource already exists")
		updated := w.ask("PUT", "packages/p?overwrite=true", `{"annotations":[]}`).want(200).object()
		if updated["version"] != "0.0.2" || len(updated["parameters"].([]any)) != 2 || len(updated["annotations"].([]any)) != 0 ||
			len(updated["binding"].(map[string]any)) != 0 {
			t.Errorf("updated: %v", updated)
		}
		w.ask("PUT", "actions/p/a", `{`+actExec+`,"parameters":[{"key":"y","value":2}]}`).want(200)
		action := w.ask("GET", "actions/p/a", "").want(200).object()
		if action["namespace"] != "guest/p" || string(encode(action["parameters"])) != `[{"key":"x","value":1},{"key":"y","value":2}]` {
			t.Errorf("a packaged action has what its package has: %v", action)
		}
		if inside := w.ask("GET", "packages/p", "").object()["actions"].([]any); len(inside) != 1 || at(t, inside[0], "name") != "a" {
			t.Errorf("actions: %v", inside)
		}
		if inside := w.ask("GET", "actions/p/", "").list(); len(inside) != 1 || inside[0]["namespace"] != "guest/p" {
			t.Errorf("actions of the package: %v", inside)
		}
		if row := w.ask("GET", "packages", "").list()[0]; row["binding"] != false || row["parameters"] != nil {
			t.Errorf("row: %v", row)
		}
		w.ask("GET", "packages?count=true", "").is(`{"packages":1}`)

		// One name, one entity.
		w.ask("PUT", "actions/p", `{`+actExec+`}`).says(409, "Resource by this name exists but is not in this collection.")
		w.ask("GET", "actions/p", "").says(409, "Resource by this name exists but is not in this collection.")
		w.deploy("a", "")
		w.ask("PUT", "packages/a", `{}`).says(409, "Resource by this name exists but is not in this collection.")

		w.ask("DELETE", "packages/p", "").says(409, "Package not empty (contains 1 entity). Set force param or delete package contents.")
		w.ask("PUT", "actions/p/b", `{`+actExec+`}`).want(200)
		w.ask("DELETE", "packages/p", "").says(409, "Package not empty (contains 2 entities). Set force param or delete package contents.")
		w.ask("DELETE", "packages/p?force=true", "").want(200)
		w.ask("GET", "actions?count=true", "").is(`{"actions":1}`)
	})
}

// Contract 1.5: bindings.
func TestBindings(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.ask("PUT", "packages/p", `{"publish":true,"parameters":[{"key":"a","value":"package"},{"key":"b","value":"package"},{"key":"c","value":"package"},{"key":"d","value":"package"}]}`).want(200)
		w.ask("PUT", "packages/private", `{}`).want(200)
		w.ask("PUT", "actions/p/x", `{`+actExec+`,"parameters":[{"key":"c","value":"action"},{"key":"d","value":"action"}]}`).want(200)
		w.deploy("act", "")

		w.ask("PUT", "packages/b", `{"binding":{"namespace":"_","name":"nope"}}`).says(400, "Binding references a package that does not exist.")
		w.ask("PUT", "packages/b", `{"binding":{"namespace":"_","name":"act"}}`).says(409, "Cannot bind to a resource that is not a package.")
		w.ask("PUT", "packages/private?overwrite=true", `{"binding":{"namespace":"_","name":"p"}}`).says(409, "Resource is a package and cannot be converted into a binding.")

		o := w.user(other)
		o.ask("PUT", "packages/b", `{"binding":{"namespace":"guest","name":"private"}}`).want(403)
		bound := o.ask("PUT", "packages/b", `{"binding":{"namespace":"guest","name":"p"},"parameters":[{"key":"b","value":"binding"},{"key":"c","value":"binding"}]}`).want(200).object()
		if annotation(t, bound, "binding").(map[string]any)["name"] != "p" {
			t.Errorf("bound: %v", bound)
		}
		o.ask("PUT", "packages/b2", `{"binding":{"namespace":"_","name":"b"}}`).says(400, "Cannot bind to another package binding.")
		o.ask("PUT", "actions/b/x", `{`+actExec+`}`).says(400, "Operation not permitted on package binding.")
		o.ask("DELETE", "actions/b/x", "").says(400, "Operation not permitted on package binding.")
		if public := o.ask("GET", "/api/v1/namespaces/guest/packages", "").list(); len(public) != 1 || public[0]["name"] != "p" {
			t.Errorf("a stranger sees %v", public)
		}
		o.ask("GET", "/api/v1/namespaces/guest/packages/private", "").want(403)
		seen := o.ask("GET", "packages/b", "").want(200).object()
		if len(seen["actions"].([]any)) != 1 || len(seen["parameters"].([]any)) != 4 {
			t.Errorf("a binding shows its provider's actions and parameters: %v", seen)
		}

		// Package, binding, action, payload: the later one wins.
		answer := o.ask("POST", "actions/b/x?blocking=true&result=true", `{"d":"payload"}`).want(200)
		answer.is(`{"got":{"a":"package","b":"binding","c":"action","d":"payload"}}`)
		rec := o.record(answer)
		if at(t, rec["annotations"].([]any)[0], "key") != "binding" || annotation(t, rec, "binding") != "other/b" || annotation(t, rec, "path") != "guest/p/x" || rec["namespace"] != "other" {
			t.Errorf("record: %v", rec)
		}
		// Through the package itself it is another container.
		o.ask("POST", "/api/v1/namespaces/guest/actions/p/x?blocking=true", "").want(200)
		w.ask("POST", "actions/p/x?blocking=true", "").want(200)
		if n := w.driver.count(); n != 3 {
			t.Errorf("%d containers for two users and a binding, want 3", n)
		}
		o.ask("DELETE", "packages/b", "").want(200)
		w.ask("PUT", "packages/p?overwrite=true", `{"publish":false}`).want(200)
		o.ask("POST", "/api/v1/namespaces/guest/actions/p/x", "").want(403)
	})
}
