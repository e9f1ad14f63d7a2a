// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

func familyPackage(name string, memory ...int) platform.Package {
	pkg := platform.Package{Name: name, Family: "disdel", Init: map[string]string{"DISDEL_STORE": storeSecret}}
	for _, mb := range memory {
		pkg.Actions = append(pkg.Actions, platform.Action{
			Name: fmt.Sprintf("m%d", mb), Memory: job.Bytes(mb) * job.MB, Timeout: time.Minute,
		})
	}
	return pkg
}

// TestPlaces_FirstFree: a package of a family takes the first place that is free,
// so that the next job has the entities that the last one had, to the letter.
func TestPlaces_FirstFree(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		deployed := func(name string) string {
			t.Helper()
			if err := c.Deploy(t.Context(), familyPackage(name, 128)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Invoke(t.Context(), platform.Call{Package: name, Action: "m128"}); err != nil {
				t.Fatal(err)
			}
			return c.place(name)
		}
		removed := func(name string) {
			t.Helper()
			if err := c.Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if got := deployed("a"); got != "disdel-1" {
			t.Errorf("the first package is %s", got)
		}
		first := string(w.actions["disdel-1/m128"])
		if got := deployed("b"); got != "disdel-2" {
			t.Errorf("the second is %s", got)
		}
		if got := deployed("a"); got != "disdel-1" {
			t.Errorf("deployed again, the first is %s", got)
		}
		removed("a")
		if got := deployed("c"); got != "disdel-1" || string(w.actions["disdel-1/m128"]) != first {
			t.Errorf("the third is %s, its action %s", got, w.actions["disdel-1/m128"])
		}
		if strings.Contains(first, "\"a\"") {
			t.Errorf("the action tells whose it is: %s", first)
		}
		removed("a") // has none
		removed("b")
		removed("c")
		if len(w.packages)+len(w.actions) != 0 {
			t.Errorf("left %v, %v", w.packages, w.actions)
		}
	})
}

// TestPlaces_OtherParameters: a warm container has the init-only parameters of the
// package that it was started for, so only the next package with the same ones gets
// an equal action.
func TestPlaces_OtherParameters(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		made := func(name, store string) string {
			t.Helper()
			pkg := familyPackage(name, 128)
			pkg.Init["DISDEL_STORE"] = store
			if err := c.Deploy(t.Context(), pkg); err != nil {
				t.Fatal(err)
			}
			action := string(w.actions["disdel-1/m128"])
			if err := c.Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return action
		}
		first, other, again := made("a", "redis://one"), made("b", "redis://two"), made("c", "redis://one")
		if first == other || first != again {
			t.Errorf("with one store %s\nwith another %s\nwith the first again %s", first, other, again)
		}
	})
}

// TestPlaces_InDoubt: a package whose making was not answered has that place, and
// takes no second one although an earlier one is free by now.
func TestPlaces_InDoubt(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		theirs := json.RawMessage(`{"annotations":[],"parameters":[]}`)
		w.set(func() {
			w.packages["disdel-1"] = theirs
			w.fault = func(rw http.ResponseWriter, r *http.Request, body []byte) bool {
				if r.Method != http.MethodPut {
					return false
				}
				w.packages["disdel-2"] = body
				refuse(rw, http.StatusBadGateway, "the answer was lost")
				return true
			}
		})
		if err := c.Deploy(t.Context(), familyPackage("a", 128)); !errors.Is(err, platform.ErrUnavailable) {
			t.Errorf("without an answer: %v", err)
		}
		w.set(func() {
			w.fault = nil
			delete(w.packages, "disdel-1")
		})
		if err := c.Deploy(t.Context(), familyPackage("a", 128)); err != nil || c.place("a") != "disdel-2" || len(w.packages) != 1 {
			t.Errorf("made again as %s of %v, %v", c.place("a"), slices.Collect(maps.Keys(w.packages)), err)
		}
		if err := c.Remove(t.Context(), "a"); err != nil || len(w.packages) != 0 {
			t.Errorf("left %v, %v", slices.Collect(maps.Keys(w.packages)), err)
		}
	})
}

// TestPlaces_OfOthers: places that others have, whoever they are, are left alone.
func TestPlaces_OfOthers(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		theirs := json.RawMessage(`{"annotations":[],"parameters":[]}`)
		w.set(func() { w.packages["disdel-1"] = theirs })
		raced := false
		w.set(func() {
			w.fault = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/disdel-2") {
					raced = true
					refuse(rw, http.StatusConflict, "resource already exists")
					return true
				}
				return false
			}
		})
		if err := c.Deploy(t.Context(), familyPackage("a", 128)); err != nil || !raced || c.place("a") != "disdel-3" {
			t.Errorf("deployed as %s, %v", c.place("a"), err)
		}
		w.set(func() { w.fault = nil })
		// The name of a place is no handle to it.
		if err := c.Remove(t.Context(), "disdel-1"); !errors.Is(err, platform.ErrRefused) {
			t.Errorf("removing a package of others: %v", err)
		}
		if err := c.Remove(t.Context(), "a"); err != nil || string(w.packages["disdel-1"]) != string(theirs) || len(w.packages) != 1 {
			t.Errorf("left %v, %v", slices.Collect(maps.Keys(w.packages)), err)
		}
		w.set(func() {
			for number := range placesMax {
				w.packages[placeName("disdel", number+1)] = theirs
			}
		})
		if err := c.Deploy(t.Context(), familyPackage("b", 128)); err != nil || c.place("b") != "b" || w.packages["b"] == nil {
			t.Errorf("without a place: %s, %v", c.place("b"), err)
		}
	})
}

// TestPlaces_OfAnotherClient: the controller that takes a job over removes what
// the one before it deployed, on whatever page of packages that is.
func TestPlaces_OfAnotherClient(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		for i := range listMax + 5 {
			w.set(func() { w.packages[fmt.Sprintf("a%03d", i)] = json.RawMessage(`{"annotations":[],"parameters":[]}`) })
		}
		if err := c.Deploy(t.Context(), familyPackage("job", 128, 256)); err != nil {
			t.Fatal(err)
		}
		other := connect(t, w, Config{Image: "example/worker:1"})
		if err := other.Remove(t.Context(), "nobody"); err != nil {
			t.Error(err)
		}
		if err := other.Deploy(t.Context(), familyPackage("job-1", 128)); err != nil || other.place("job-1") != "disdel-2" {
			t.Errorf("the next controller's package is %s, %v", other.place("job-1"), err)
		}
		for range 2 {
			if err := other.Remove(t.Context(), "job"); err != nil {
				t.Fatal(err)
			}
		}
		if w.packages["disdel-1"] != nil || w.packages["disdel-2"] == nil || len(w.actions) != 1 {
			t.Errorf("left %v", slices.Collect(maps.Keys(w.actions)))
		}
		// The first client has lost its place, and takes nobody else's.
		if err := other.Deploy(t.Context(), familyPackage("new", 128)); err != nil || other.place("new") != "disdel-1" {
			t.Fatalf("%s, %v", other.place("new"), err)
		}
		if err := c.Deploy(t.Context(), familyPackage("job", 128)); err != nil || c.place("job") != "disdel-3" {
			t.Errorf("deployed anew, the old owner has %s, %v", c.place("job"), err)
		}
		if err := c.Remove(t.Context(), "job"); err != nil || w.packages["disdel-1"] == nil {
			t.Errorf("an old owner removed a place that another has: %v", err)
		}
	})
}

// TestPlaces_RefusedLeavesNone: a package that was refused leaves its place.
func TestPlaces_RefusedLeavesNone(t *testing.T) {
	world(t, func(t *testing.T, w *whisk, c *Client) {
		w.set(func() {
			w.fault = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/m512") {
					refuse(rw, http.StatusBadRequest, "requirement failed: memory size 512 MB exceeds allowed threshold of 384 MB")
					return true
				}
				return false
			}
		})
		if err := c.Deploy(t.Context(), familyPackage("a", 512)); !errors.Is(err, platform.ErrRefused) || len(w.packages) != 0 {
			t.Errorf("%v, left %v", err, w.packages)
		}
		if err := c.Deploy(t.Context(), familyPackage("b", 128)); err != nil || c.place("b") != "disdel-1" {
			t.Errorf("the next package is %s, %v", c.place("b"), err)
		}
	})
}
