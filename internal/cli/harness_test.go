// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// programs is a folder with both programs, alone one with disdel only. home is that
// of a user who has made a plan: what it measured of workers is kept there.
var programs, alone, home string

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func testMain(m *testing.M) (code int, err error) {
	folder, err := os.MkdirTemp("", "disdel-cli-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	programs, alone, home = filepath.Join(folder, "both"), filepath.Join(folder, "alone"), filepath.Join(folder, "home")
	for _, path := range []string{programs, alone} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return 1, err
		}
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", programs, "disdel/cmd/disdel", "disdel/cmd/disdel-worker")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	if err := os.Link(filepath.Join(programs, "disdel"), filepath.Join(alone, "disdel")); err != nil {
		return 1, err
	}
	first := exec.Command(filepath.Join(programs, "disdel"), "plan", "digits")
	first.Env = []string{"HOME=" + home, "DISDEL_STORE=dir://" + filepath.Join(folder, "store"), "PATH=" + os.Getenv("PATH")}
	if out, err := first.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("measure workers: %w\n%s", err, out)
	}
	code = m.Run()
	return code, goleak.Find()
}

// desk is where a user sits: an environment and files of his own.
type desk struct {
	t       *testing.T
	folder  string
	env     map[string]string
	program string
}

// emptyDesk is one at which nobody has worked yet.
func emptyDesk(t *testing.T) *desk {
	t.Helper()
	folder := t.TempDir()
	return &desk{t: t, folder: folder, program: filepath.Join(programs, "disdel"), env: map[string]string{
		"HOME": filepath.Join(folder, "home"), "DISDEL_STORE": "dir://" + filepath.Join(folder, "store"), "PATH": os.Getenv("PATH"),
	}}
}

// newDesk is one where workers have been measured.
func newDesk(t *testing.T) *desk {
	t.Helper()
	d := emptyDesk(t)
	if err := os.CopyFS(d.env["HOME"], os.DirFS(home)); err != nil {
		t.Fatal(err)
	}
	return d
}

// install gives the desk programs of its own, which nobody else runs, and returns their
// folder.
func (d *desk) install() (folder string) {
	d.t.Helper()
	folder = filepath.Join(d.folder, "bin")
	if err := os.CopyFS(folder, os.DirFS(programs)); err != nil {
		d.t.Fatal(err)
	}
	d.program = filepath.Join(folder, "disdel")
	return folder
}

func (d *desk) store() string { return filepath.Join(d.folder, "store") }

// outcome is what a command left.
type outcome struct {
	code           int
	stdout, stderr string
}

// run carries a command out in this process.
func (d *desk) run(args ...string) outcome {
	d.t.Helper()
	return d.runWith(func(*app) {}, args...)
}

func (d *desk) runWith(change func(*app), args ...string) outcome {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{
		stdout: &stdout, stderr: &stderr, getenv: func(name string) string { return d.env[name] },
		program: func() (string, error) { return d.program, nil },
	}
	change(a)
	code := a.run(d.t.Context(), args)
	return outcome{code, stdout.String(), stderr.String()}
}

func (d *desk) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(d.t.Context(), d.program, args...)
	for _, name := range slices.Sorted(maps.Keys(d.env)) {
		cmd.Env = append(cmd.Env, name+"="+d.env[name])
	}
	cmd.Dir = d.folder
	return cmd
}

// exec carries a command out as a process of its own.
func (d *desk) exec(args ...string) outcome {
	d.t.Helper()
	cmd := d.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want fails unless the command ended with the code and said all that on stderr.
func (o outcome) want(t *testing.T, code int, says ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code %d; want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	for _, part := range says {
		if !strings.Contains(o.stderr, part) {
			t.Errorf("stderr does not say %q:\n%s", part, o.stderr)
		}
	}
	if strings.ContainsRune(o.stdout+o.stderr, '\x1b') {
		t.Errorf("escape sequences where there is no terminal:\n%q\n%q", o.stdout, o.stderr)
	}
	return o
}

// object is the one JSON object that stdout must be.
func (o outcome) object(t *testing.T) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(o.stdout))
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("stdout is no JSON object: %v\nstdout: %s\nstderr: %s", err, o.stdout, o.stderr)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("stdout goes on after the object: %s", o.stdout)
	}
	return object
}

// field follows a path of names and indices.
func field[T any](t *testing.T, object any, path ...string) T {
	t.Helper()
	for _, name := range path {
		m, ok := object.(map[string]any)
		if !ok {
			t.Fatalf("%v: %v is no object", path, object)
		}
		object = m[name]
	}
	value, ok := object.(T)
	if !ok {
		t.Fatalf("%v is %#v; want a %T", path, object, value)
	}
	return value
}

// names are the names of an object's fields.
func names(t *testing.T, object any) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(field[map[string]any](t, object)))
}

// patience is when a test gives up what should long have happened.
const patience = time.Minute

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}

// scratch lists the objects of jobs that the store still holds.
func (d *desk) scratch() (left []string) {
	d.t.Helper()
	root := filepath.Join(d.store(), "objects", "jobs")
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			left = append(left, path)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return left
}

// files lists the store's files below a folder of it, sorted.
func (d *desk) files(folder string) (paths []string) {
	d.t.Helper()
	err := filepath.WalkDir(filepath.Join(d.store(), folder), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	if len(paths) == 0 {
		d.t.Fatalf("no file below %s", folder)
	}
	return paths
}

// damage changes a bit in the middle of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 4
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
