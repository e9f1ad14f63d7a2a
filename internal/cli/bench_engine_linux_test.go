// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"disdel/internal/bench"
)

// fakePeers stands for bench/peers/peers.py; a shell runs it.
const fakePeers = `
case "$1" in
versions)
  echo '{"event":"found","framework":"fast","version":"1.0"}'
  echo '{"event":"found","framework":"broken","version":"2.0"}'
  echo '{"event":"missing","framework":"absent","error":"no module named absent"}' ;;
run)
  [ "$2" = broken ] && { echo "it does not load" >&2; exit 1; }
  case "$*" in *'--serve --spec {"name":"cnn"'*'--mode train --batch 4 --threads 1'*) ;; *) echo "bad arguments: $*" >&2; exit 1 ;; esac
  echo "a library says hello"
  echo '{"event":"ready","framework":"fast","version":"1.0"}'
  while read steps; do echo "{\"event\":\"chunk\",\"steps\":$steps,\"seconds\":0.5}"; done
  echo '{"event":"end","peak_bytes":1048576}' ;;
esac
`

const fakePrototype = `#!/bin/sh
case "$*" in "-fuse -hw 8 -c 1 -batch 4 -n 640 -threads 1 -chunks 2 -steps 3") echo "goasm best=900/s median=800/s mean=1/s" ;; *) echo "bad arguments: $*" >&2; exit 1 ;; esac
`

func TestBenchEngine(t *testing.T) {
	d := newDesk(t)
	script, prototype := filepath.Join(d.folder, "peers.sh"), filepath.Join(d.folder, "prototype")
	for path, text := range map[string]string{script: fakePeers, prototype: fakePrototype} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := d.exec("bench", "engine", "--shapes", "8x8", "--batches", "4", "--threads", "1", "--steps", "6", "--chunk", "3",
		"--peers", "/bin/sh", "--script", script, "--prototype", prototype+" -fuse", "--json").want(t, ExitOK, "case 1 of 1: cnn 8x8x1, batch 4, 1 threads, train")
	var answer struct {
		Machine bench.Machine
		Rows    []bench.EngineRow
	}
	if err := json.Unmarshal([]byte(o.stdout), &answer); err != nil {
		t.Fatalf("%v: %s", err, o.stdout)
	}
	rows := map[string]bench.EngineRow{}
	for _, r := range answer.Rows {
		rows[r.Run.Engine] = r
	}
	own := rows[bench.OwnEngine]
	if own.Run.Steps != 6 || len(own.Run.Bursts) != 2 || own.Rates.Min <= 0 || own.Run.Start <= 0 || own.Run.Peak < 1<<20 || own.Times != 1 {
		t.Errorf("own: %+v", own)
	}
	if r := rows["fast"]; r.Rates.Median != 24 || r.Run.Peak != 1<<20 || r.Run.Version != "1.0" || r.Times != own.Rates.Median/24 {
		t.Errorf("fast: %+v", r)
	}
	if r := rows["prototype"]; r.Best != 900 || r.Rates.Median != 800 || len(r.Run.Bursts) != 2 {
		t.Errorf("prototype: %+v", r)
	}
	if r := rows["absent"]; r.Run.Absent != "not there: no module named absent" {
		t.Errorf("absent: %+v", r)
	}
	if r := rows["broken"]; r.Run.Absent == "" || !strings.Contains(o.stderr, "it does not load") {
		t.Errorf("broken: %+v; stderr %s", r, o.stderr)
	}
	text := d.exec("bench", "engine", "--models", "mlp", "--modes", "infer", "--shapes", "8x8x1", "--batches", "8", "--threads", "1", "--steps", "2", "--chunk", "1", "--quiet").want(t, ExitOK)
	if !strings.Contains(text.stdout, "mlp    8x8x1    8      1        infer  disdel") || text.stderr != "" {
		t.Errorf("printed %s; %s", text.stdout, text.stderr)
	}
}

func TestBenchEngineUsage(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct {
		args, says string
	}{
		{"digits", "unknown argument"},
		{"--models nothing", "unknown model"},
		{"--models=", "--models: want one at least"},
		{"--shapes 8", "--shapes"},
		{"--shapes 2x2", "--models"},
		{"--batches 0", "batch is 0"},
		{"--batches x", "batches"},
		{"--threads 0", "--threads 0: want 1 to"},
		{"--threads 100000", "--threads 100000: want 1 to"},
		{"--modes both", `--modes "both": want train or infer`},
		{"--steps 10 --chunk 11", "--steps 10, --chunk 11"},
		{"--chunk 0", `"--chunk" flag: "0"`},
		{"--steps 100000001", "--steps 100000001"},
		{"--peers python3 --script /nowhere/peers.py", "--script: stat /nowhere/peers.py"},
		{"--peers /nowhere/python --script /dev/null", "--peers"},
		{"--prototype /nowhere/prototype", "--prototype"},
	} {
		if o := d.exec(append([]string{"bench", "engine", "--threads", "1"}, strings.Fields(c.args)...)...).want(t, ExitUsage, c.says); o.stdout != "" {
			t.Errorf("%q printed %s", c.args, o.stdout)
		}
	}
	// An interpreter that names no framework is no framework that is missing.
	d.exec("bench", "engine", "--threads", "1", "--peers", "/bin/sh", "--script", "/dev/null").want(t, ExitFailed, "names no frameworks")
	d.exec("bench", "engine", "--threads", "1", "--peers", "/bin/false", "--script", "/dev/null").want(t, ExitFailed, "exit status 1")
}
