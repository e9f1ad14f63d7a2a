// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"disdel/internal/data/format/formattest"
)

// write puts a file into the desk's folder.
func (d *desk) write(name string, data []byte) string {
	d.t.Helper()
	path := filepath.Join(d.folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// smallMNIST writes the four files of MNIST, far too small.
func (d *desk) smallMNIST(folder string) string {
	d.t.Helper()
	for name, records := range map[string]int{"train": 40, "t10k": 10} {
		labels := make([]byte, records)
		for i := range labels {
			labels[i] = byte(i % 10)
		}
		d.write(filepath.Join(folder, name+"-images-idx3-ubyte"), formattest.IDX([]int{records, 8, 8}, formattest.Counting(64*records)))
		d.write(filepath.Join(folder, name+"-labels-idx1-ubyte.gz"), formattest.Gzip(formattest.IDX([]int{records}, labels)))
	}
	return filepath.Join(d.folder, folder)
}

// pets is a CSV file of two classes.
func pets() []byte {
	var b bytes.Buffer
	b.WriteString("label,a,b,c,d,e,f\n")
	for i := range 60 {
		fmt.Fprintf(&b, "%s,%d,200,0,0,0,%d\n", []string{"dog", "cat"}[i%2], i, 255*(i%2))
	}
	return b.Bytes()
}

// TestSources_Own: the path of a file is a data set, under a name of its own.
func TestSources_Own(t *testing.T) {
	d := newDesk(t)
	path := d.write("My Pets.csv", pets())
	shape := []string{"--shape", "2x3"}
	d.run(append([]string{"plan", path, "--model", "mlp"}, shape...)...).want(t, ExitOK, "my-pets has no test part: 12 of its 60 records")
	d.run(append([]string{"infer", path}, shape...)...).want(t, ExitUsage, "none is trained on my-pets")

	trained := d.run(append([]string{"train", path, "--model", "mlp", "--epochs", "1", "--json"}, shape...)...).want(t, ExitOK).object(t)
	if got := field[string](t, trained, "dataset"); got != "my-pets" {
		t.Errorf("trained on %q", got)
	}
	if got := d.run("models").want(t, ExitOK); !strings.Contains(got.stdout, "my-pets") {
		t.Errorf("models: %s", got.stdout)
	}
	got := d.run(append([]string{"infer", path}, shape...)...).want(t, ExitOK)
	for _, text := range []string{"infer my-pets, succeeded", "12 test records", "is \\ seen as", "cat", "dog"} {
		if !strings.Contains(got.stdout, text) {
			t.Errorf("infer does not say %q:\n%s", text, got.stdout)
		}
	}
}

// TestSources_DataDir: a folder of the user's is named by a flag or else by the
// environment, and data that is not the published is used with a notice.
func TestSources_DataDir(t *testing.T) {
	d := newDesk(t)
	folder := d.smallMNIST("data/mnist")
	for _, c := range []struct {
		env  string
		args []string
	}{{filepath.Dir(folder), nil}, {folder, nil}, {"", []string{"--data-dir", filepath.Dir(folder)}}, {"/nowhere", []string{"--data-dir", folder}}} {
		d.env["DISDEL_DATA"] = c.env
		d.run(append([]string{"plan", "mnist"}, c.args...)...).want(t, ExitOK,
			"mnist is used from "+folder+", which is not the published version: 40 and 10 records of 8x8x1 instead of 60000 and 10000 records of 28x28x1")

		object := d.run(append([]string{"datasets", "--json"}, c.args...)...).want(t, ExitOK).object(t)
		where := map[string]string{}
		for _, row := range field[[]any](t, object, "datasets") {
			m := field[map[string]any](t, row)
			where[m["name"].(string)] = fmt.Sprint(m["path"], " ", m["download_bytes"])
		}
		for name, want := range map[string]string{"digits": "<nil> <nil>", "mnist": folder + " <nil>", "cifar10": "<nil> 1.70052171e+08"} {
			if where[name] != want {
				t.Errorf("%s is at %q, want %q", name, where[name], want)
			}
		}
		text := d.run(append([]string{"datasets"}, c.args...)...).want(t, ExitOK).stdout
		for _, part := range []string{"built in", folder, "to download, 170.1 MB", "WHERE"} {
			if !strings.Contains(text, part) {
				t.Errorf("datasets does not say %q:\n%s", part, text)
			}
		}
	}
	// What Keras has left is found too, in its usual folder and in another.
	d = newDesk(t)
	for _, keras := range []string{"", filepath.Join(d.folder, "keras")} {
		d.env["KERAS_HOME"] = keras
		below := "home/.keras"
		if keras != "" {
			below = "keras"
		}
		folder := d.smallMNIST(below + "/datasets/fashion-mnist")
		if got := d.run("datasets").want(t, ExitOK); !strings.Contains(got.stdout, folder) {
			t.Errorf("%s is not found:\n%s", folder, got.stdout)
		}
	}
}

func TestSources_WhatIsWrong(t *testing.T) {
	d := newDesk(t)
	bad := d.write("bad.npz", []byte("hello"))
	for _, c := range []struct {
		line string
		code int
		says []string
	}{
		{"train ./nope.npz", ExitUsage, []string{"unknown data set", "nope.npz: no such file"}},
		{"train nope", ExitUsage, []string{`"nope"; there is: digits, mnist,`, "or give the path of your own"}},
		{"train digits --shape 3by3", ExitUsage, []string{"--shape", `"3by3"`, "28x28 or 32x32x3"}},
		{"plan mnist --offline", ExitFailed, []string{"load data set mnist: ", "nothing is downloaded", "get train-images-idx3-ubyte.gz, ", "give --data-dir DIR"}},
		{"plan " + bad, ExitFailed, []string{"load data set bad: ", "invalid data set: " + bad + ": zip directory: the file is damaged"}},
	} {
		if got := d.run(strings.Fields(c.line)...).want(t, c.code, c.says...); got.stdout != "" {
			t.Errorf("%s: stdout %q", c.line, got.stdout)
		}
	}
}

// TestSources_Download: downloads go through the environment's proxy into the
// cache, and are refused if they are not what is published.
func TestSources_Download(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.String())
		mu.Unlock()
		w.Header().Set("Content-Length", "26421880")
		_, _ = w.Write(make([]byte, 26421880))
	}))
	defer proxy.Close()
	d := newDesk(t)
	d.env["http_proxy"], d.env["XDG_CACHE_HOME"] = proxy.URL, filepath.Join(d.folder, "cache")
	const file = "train-images-idx3-ubyte.gz"
	got := d.exec("plan", "fashion_mnist").want(t, ExitFailed,
		"disdel: downloading "+file+", 0.0 of 26.4 MB\n", "disdel: downloading "+file+", 26.4 of 26.4 MB\n",
		"other contents than published: SHA-256 ", "want 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
		"yourself into DIR/fashion_mnist and give --data-dir DIR")
	mu.Lock()
	if want := []string{"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/" + file}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	mu.Unlock()
	if got.stdout != "" {
		t.Errorf("stdout %q", got.stdout)
	}
	left, err := os.ReadDir(filepath.Join(d.folder, "cache", "disdel", "datasets", "fashion_mnist"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
	if got := d.exec("plan", "fashion_mnist", "--quiet").want(t, ExitFailed); strings.Contains(got.stderr, "downloading "+file+",") {
		t.Errorf("quiet, but stderr says %s", got.stderr)
	}
}

func TestShare(t *testing.T) {
	for total, want := range map[int64]string{4542: "2.3 of 4.5 kB", 9912422: "5.0 of 9.9 MB"} {
		if got := share(total/2, total); got != want {
			t.Errorf("half of %d is %q, want %q", total, got, want)
		}
	}
}

func TestSources_Bar(t *testing.T) {
	var stderr bytes.Buffer
	d := &downloads{a: &app{stderr: &stderr, terminal: true, getenv: func(string) string { return "" }}}
	d.show("a.gz", 0, 100)
	d.show("a.gz", 100, 100)
	d.show("b.gz", 0, 200)
	d.end()
	if got := stderr.String(); !strings.Contains(got, "downloading a.gz") || !strings.Contains(got, "downloading b.gz") || strings.Contains(got, "\n") || !strings.HasSuffix(got, "\r") {
		t.Errorf("the bar shows %q", got)
	}
}

// TestOtherClasses: a model is not run over data of other classes because both
// data sets have one name.
func TestOtherClasses(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, c := range []struct{ folder, classes string }{{"a", "elm oak"}, {"b", "fish frog"}} {
		for i, class := range strings.Fields(c.classes) {
			for n := range 6 {
				pixels := bytes.Repeat([]byte{byte(40 + 120*i + n)}, 64)
				d.write(filepath.Join(c.folder, "pics", class, fmt.Sprintf("%d.png", n)), png8(t, pixels))
			}
		}
	}
	d.exec("train", filepath.Join(d.folder, "a", "pics"), "--epochs", "1", "--model", "mlp", "--quiet").want(t, ExitOK)
	d.exec("infer", filepath.Join(d.folder, "a", "pics"), "--quiet").want(t, ExitOK)
	d.exec("infer", filepath.Join(d.folder, "b", "pics"), "--quiet").want(t, ExitUsage, "elm, oak", "fish, frog", "--model")
}
