// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"disdel/internal/nn/kernel"
)

// TestUsage: a command line that makes no sense says what is wrong and what
// would be right, ends with code 2, and leaves no file and no output behind.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		line string
		says []string
	}{
		{"dance", []string{`unknown command "dance"`, "disdel --help"}},
		{"--dance", []string{"unknown flag: --dance"}},
		{"platform dance", []string{`platform: unknown command "dance"`, "disdel platform --help"}},
		{"train", []string{"want the name of one data set", "digits", "disdel train --help"}},
		{"infer", []string{"infer: want the name of one data set", "digits"}},
		{"plan", []string{"plan: want the name of one data set", "digits"}},
		{"train digits mnist", []string{"2 arguments are given (digits, mnist)"}},
		{"train nope", []string{`data set "nope"`, "digits"}},
		{"infer nope", []string{`data set "nope"`, "digits"}},
		{"plan nope", []string{`data set "nope"`, "digits"}},
		{"train digits --dance", []string{"unknown flag: --dance", "disdel train --help"}},
		{"train digits --model vgg", []string{`"vgg"`, "cnn, cnn-deep, lenet5, mlp, resnet20"}},
		{"plan digits --model vgg", []string{`"vgg"`, "cnn, cnn-deep, lenet5, mlp, resnet20"}},
		{"train digits --batch 0", []string{"--batch", `"0"`, "at least 1"}},
		{"train digits --batch 1.5", []string{"--batch", `"1.5"`, "whole number"}},
		{"train digits --batch 100000", []string{"batch 100000", "65536"}},
		{"train digits --local-batch 0", []string{"--local-batch"}},
		{"train digits --epochs -1", []string{"--epochs", `"-1"`, "at least 1"}},
		{"train digits --epochs", []string{"--epochs", "needs an argument"}},
		{"train digits --rounds 0", []string{"--rounds"}},
		{"train digits --rounds 100000", []string{"rounds 100000", "900 steps"}},
		{"train digits --sync step --rounds 3", []string{"rounds 3 with sync step", "leave --rounds out"}},
		{"plan digits --sync step --local-batch 3", []string{"local batch 3 with sync step", "leave --local-batch out"}},
		{"train digits --sync step --workers 65", []string{"workers 65 with sync step", "batch of 64"}},
		{"train digits --model lenet5", []string{"lenet5 on digits", "records need 12x12 pixels at least"}},
		{"train digits --sync step --model cnn-deep", []string{"cnn-deep normalises a batch", "--sync rounds"}},
		{"train digits --sync often", []string{"--sync", `"often"`, "want rounds or step"}},
		{"train digits --schedule linear", []string{`schedule "linear"`, "constant, step or cosine"}},
		{"train digits --warmup 5", []string{"warm-up of 5 epochs", "below the 5"}},
		{"plan digits --warmup nan", []string{"warm-up of NaN epochs"}},
		{"train digits --l2 -1", []string{"l2 -1"}},
		{"train digits --l2 much", []string{"--l2", `"much"`, "want a number"}},
		{"train digits --clip -1", []string{"clip -1"}},
		{"train digits --label-smoothing 1", []string{"label smoothing 1", "below 1"}},
		{"train digits --shifts 0", []string{"--shifts", "at least 1"}},
		{"train digits --shifts 8", []string{"shifts of 8 pixels", "digits have 8x8", "7 at most"}},
		{"infer digits --flips", []string{"--flips"}},
		{"train digits --lr nan", []string{"learning rate NaN", "more than 0"}},
		{"train digits --lr 0", []string{"learning rate 0", "more than 0"}},
		{"train digits --lr -1", []string{"learning rate -1"}},
		{"train digits --lr inf", []string{"learning rate +Inf", "at most 10"}},
		{"train digits --lr fast", []string{"--lr", `"fast"`}},
		{"train digits --seed -1", []string{"--seed", `"-1"`, "want a whole number from 0"}},
		{"train digits --workers 0", []string{"--workers", "at least 1"}},
		{"train digits --workers 5000", []string{"workers 5000", "1024"}},
		{"train digits --strategy guess", []string{`strategy "guess"`, "distributed, single or brute-force"}},
		{"train digits --strategy single --workers 2", []string{"workers 2", "strategy single"}},
		{"train digits --strategy single --rounds 2", []string{"rounds 2", "strategy single"}},
		{"train digits --strategy brute-force --local-batch 2", []string{"local batch 2", "strategy brute-force"}},
		{"train digits --strategy brute-force --minimize cost", []string{"minimize cost", "strategy brute-force"}},
		{"train digits --minimize effort", []string{`minimize "effort"`, "time, memory or cost"}},
		{"plan digits --estimator guess", []string{`estimator "guess"`, "exact or thesis"}},
		{"train digits --containers 0", []string{"--containers"}},
		{"train digits --memory abc", []string{"--memory", `"abc"`, "256MB"}},
		{"train digits --memory 0", []string{"--memory", `"0"`, "more than 0"}},
		{"train digits --memory -5", []string{"--memory", `"-5"`}},
		{"train digits --memory 99999999999999G", []string{"--memory", "too large"}},
		{"train digits --timeout -1", []string{"--timeout", `"-1"`, "1m30s"}},
		{"train digits --timeout 0", []string{"--timeout", `"0"`}},
		{"train digits --timeout soon", []string{"--timeout", `"soon"`}},
		{"train digits --timeout nan", []string{"--timeout", `"nan"`}},
		{"train digits --timeout 1e300", []string{"--timeout", `"1e300"`}},
		{"train digits --pool-memory 100", []string{"pool memory 100 MB", "--pool-memory", "--max-memory"}},
		{"train digits --min-memory 300 --max-memory 200", []string{"maximum memory 200 MB", "--min-memory"}},
		{"train digits --enforcement prayer", []string{"--enforcement", `"prayer"`, "cgroup-v2", "watched"}},
		{"train digits --store tftp://user:secret@127.0.0.1:1", []string{`"tftp"`, "dir:///absolute/path"}},
		{"train digits --store redis://user:secret@127.0.0.1:none", []string{"port"}},
		{"train digits --store relative/path", []string{"dir:///absolute/path"}},
		{"train digits --store dir://relative/path", []string{"relative/path", "absolute"}},
		{"train digits --store /plain/path", []string{"write dir:///plain/path"}},
		{"models --store relative/path", []string{"dir:///absolute/path"}},
		{"models x", []string{`models: unknown command "x"`}},
		{"datasets x", []string{`unknown command "x"`}},
		{"version x", []string{`unknown argument "x"`}},
		{"platform check x", []string{`platform check: unknown argument "x"`}},
		{"jobs a b", []string{"at most one job", "(a, b)"}},
		{"jobs NO", []string{`"NO"`, "lower-case"}},
	} {
		for _, asJSON := range []bool{false, true} {
			line := c.line
			if asJSON && strings.HasPrefix(line, "train digits ") && !strings.HasSuffix(line, "--epochs") {
				line += " --json"
			}
			t.Run(line, func(t *testing.T) {
				d := emptyDesk(t)
				got := d.run(strings.Fields(line)...).want(t, ExitUsage, c.says...)
				if got.stdout != "" || strings.Contains(got.stderr, "secret") {
					t.Errorf("stdout %q, stderr %q; want no data and no password", got.stdout, got.stderr)
				}
				if lines := strings.Count(got.stderr, "\n"); lines != 2 {
					t.Errorf("%d lines; want what is wrong and where to look:\n%s", lines, got.stderr)
				}
				if made, err := os.ReadDir(d.folder); err != nil || len(made) > 0 && !strings.Contains(line, "-memory") {
					t.Errorf("made %v, %v", made, err)
				}
			})
		}
	}
}

// TestUsage_NothingThere: what is asked for is not in the store.
func TestUsage_NothingThere(t *testing.T) {
	d := newDesk(t)
	d.run("infer", "digits").want(t, ExitUsage, "none is trained on digits", "disdel train digits")
	d.run("infer", "digits", "--model", "abc").want(t, ExitUsage, `"abc"`, "disdel models")
	d.run("jobs", "no-such-job").want(t, ExitUsage, "no-such-job", "disdel jobs")
	for _, list := range []string{"models", "jobs"} {
		if got := d.run(list).want(t, ExitOK, "disdel train digits"); got.stdout != "" {
			t.Errorf("%s of an empty store printed %q", list, got.stdout)
		}
		if rows := field[[]any](t, d.run(list, "--json").want(t, ExitOK).object(t), list); len(rows) != 0 {
			t.Errorf("%s: %v", list, rows)
		}
	}
}

// TestHelp: help is data, and tells every default.
func TestHelp(t *testing.T) {
	d := emptyDesk(t)
	for line, says := range map[string][]string{
		"":     {"Exit codes: 0 success, 1 the job failed, 2 wrong usage, 130 interrupted", "train", "infer", "platform"},
		"help": {"Exit codes"},
		"train --help": {
			"(default 64)", "(default 5)", "(default: 0.001, for sgd 0.01)", "(default 1)", `(default "cnn")`, "(default: planned)", "(default 60)",
			"(default 2048)", "(default 128)", "(default 512)", "(default: the first that works)", "$DISDEL_STORE",
		},
		"infer --help":    {"(default: the newest of the data set)"},
		"platform":        {"check"},
		"platform --help": {"check"},
		"completion bash": {"complete"},
		"completion zsh":  {"compdef"},
		"completion fish": {"complete -c disdel"},
		"version":         {"disdel ", "go1", kernel.Best().Name},
		"datasets":        {"digits", "8x8x1", "1,438", "359", "Alpaydin", "CC-BY-4.0"},
	} {
		got := d.run(strings.Fields(line)...).want(t, ExitOK)
		for _, part := range says {
			if !strings.Contains(got.stdout, part) {
				t.Errorf("%q does not say %q:\n%s", line, part, got.stdout)
			}
		}
		if got.stderr != "" {
			t.Errorf("%q: stderr %q", line, got.stderr)
		}
	}
	if made, err := os.ReadDir(d.folder); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
}

// TestPlaces: where files go, and what is said when they cannot.
func TestPlaces(t *testing.T) {
	file := func(d *desk) string {
		path := filepath.Join(d.folder, "file")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		set  func(d *desk)
		code int
		says []string
	}{
		{"no home", func(d *desk) { delete(d.env, "HOME"); delete(d.env, "DISDEL_STORE") }, ExitUsage, []string{"HOME", "XDG_DATA_HOME", "--store"}},
		{"relative home", func(d *desk) { d.env["HOME"] = "home"; delete(d.env, "DISDEL_STORE") }, ExitUsage, []string{"HOME"}},
		{"relative store", func(d *desk) { d.env["DISDEL_STORE"] = "store" }, ExitUsage, []string{"dir:///absolute/path"}},
		{"store is a file", func(d *desk) { d.env["DISDEL_STORE"] = "dir://" + file(d) }, ExitFailed, []string{"file", "not a directory"}},
		{"store below a file", func(d *desk) { d.env["DISDEL_STORE"] = "dir://" + file(d) + "/store" }, ExitFailed, []string{"file/store", "not a directory"}},
		{"store that cannot be made", func(d *desk) { d.env["DISDEL_STORE"] = "dir:///proc/store" }, ExitFailed, []string{"/proc/store"}},
		{"store among other files", func(d *desk) { file(d); d.env["DISDEL_STORE"] = "dir://" + d.folder }, ExitFailed, []string{d0, `"file"`, "name an empty or a new folder"}},
		{"store that nobody serves", func(d *desk) { d.env["DISDEL_STORE"] = "redis://user:secret@127.0.0.1:1" }, ExitFailed, []string{"redis://127.0.0.1:1", "refused"}},
		{"no worker", func(d *desk) { d.program = filepath.Join(d.folder, "gone", "disdel") }, ExitFailed, []string{"find the worker", "gone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			c.set(d)
			for _, command := range []string{"train", "plan"} {
				says := make([]string, len(c.says))
				for i, part := range c.says {
					says[i] = strings.ReplaceAll(part, d0, d.folder)
				}
				if got := d.run(command, "digits").want(t, c.code, says...); got.stdout != "" || strings.Contains(got.stderr, "secret") {
					t.Errorf("stdout %q, stderr %q; want no data and no password", got.stdout, got.stderr)
				}
			}
			if c.code == ExitFailed {
				object := d.run("train", "digits", "--json").want(t, c.code).object(t)
				if field[string](t, object, "status") != "failed" || field[string](t, object, "error") == "" {
					t.Errorf("the record is %v", object)
				}
			}
		})
	}
}

// d0 stands for the desk's folder.
const d0 = "<folder>"

// TestPlaces_Used: data goes to the data folder, measurements to the cache
// folder, and without a place for those things work all the same.
func TestPlaces_Used(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		set          func(d *desk)
		store, cache string
		says         string
	}{
		{"home", func(d *desk) { delete(d.env, "DISDEL_STORE") }, "home/.local/share/disdel", "home/.cache/disdel", ""},
		{"XDG", func(d *desk) {
			delete(d.env, "DISDEL_STORE")
			d.env["XDG_DATA_HOME"], d.env["XDG_CACHE_HOME"] = filepath.Join(d.folder, "data"), filepath.Join(d.folder, "cache")
		}, "data/disdel", "cache/disdel", ""},
		{"no cache", func(d *desk) { delete(d.env, "HOME") }, "store", "", ""},
		{"broken cache", func(d *desk) {
			d.env["XDG_CACHE_HOME"] = filepath.Join(d.folder, "file")
			if err := os.WriteFile(d.env["XDG_CACHE_HOME"], nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "store", "", "cannot be kept"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := emptyDesk(t)
			d.install() // what is measured of a program that others run now is not kept
			c.set(d)
			got := d.run("plan", "digits").want(t, ExitOK, "measuring a worker", c.says)
			for _, part := range []string{"replicas", "kernels", kernel.Best().Name, "why", "128 MB"} {
				if !strings.Contains(got.stdout, part) {
					t.Errorf("the plan does not say %q:\n%s", part, got.stdout)
				}
			}
			if _, err := os.Stat(filepath.Join(d.folder, c.store, "objects")); err != nil {
				t.Error(err)
			}
			again := d.run("plan", "digits").want(t, ExitOK)
			measured := strings.Contains(again.stderr, "measuring")
			if _, err := os.Stat(filepath.Join(d.folder, c.cache, "probes")); (c.cache != "") == errors.Is(err, fs.ErrNotExist) || measured == (c.cache != "") {
				t.Errorf("cache: %v; measured again: %v", err, measured)
			}
			if c.cache == "" {
				return
			}
			// What cannot be read is measured again.
			kept, err := filepath.Glob(filepath.Join(d.folder, c.cache, "probes", "*.json"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("kept %v, %v; want one measurement", kept, err)
			}
			if err := os.WriteFile(kept[0], []byte(fmt.Sprintf("%q", "no probe")), 0o600); err != nil {
				t.Fatal(err)
			}
			d.run("plan", "digits").want(t, ExitOK, "measuring a worker")
		})
	}
}

// TestColour: red on a terminal only, and not where somebody asked for none.
func TestColour(t *testing.T) {
	for _, c := range []struct {
		name, value string
		terminal    bool
		red         bool
	}{
		{"", "", true, true},
		{"", "", false, false},
		{"NO_COLOR", "1", true, false},
		{"TERM", "dumb", true, false},
	} {
		d := newDesk(t)
		if c.name != "" {
			d.env[c.name] = c.value
		}
		got := d.runWith(func(a *app) { a.terminal = c.terminal }, "train", "nope")
		if strings.Contains(got.stderr, "\x1b[31m") != c.red {
			t.Errorf("%s=%s, terminal %v: %q", c.name, c.value, c.terminal, got.stderr)
		}
	}
}
