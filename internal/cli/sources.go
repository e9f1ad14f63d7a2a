// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"

	"disdel/internal/data"
)

// systemData is where packages of the system put data sets.
const systemData = "/usr/share"

// dataOptions says where data sets are looked for and kept. Whoever opens one
// calls end afterwards.
func (a *app) dataOptions(o *options) (_ data.Options, end func()) {
	out := data.Options{
		DataDir: o.dataDir, SystemDir: systemData, Offline: o.offline, Shape: o.shape,
		Notice: func(text string) { fmt.Fprintln(a.stderr, "disdel:", text) },
	}
	if out.DataDir == "" {
		out.DataDir = a.getenv(dataEnv)
	}
	if cache, err := a.userFolder(cacheHomeEnv, ".cache"); err == nil {
		out.CacheDir = filepath.Join(cache, "datasets")
	}
	out.KerasDir = a.getenv(kerasEnv)
	if home := a.getenv("HOME"); out.KerasDir == "" && filepath.IsAbs(home) {
		out.KerasDir = filepath.Join(home, ".keras")
	}
	d := &downloads{a: a}
	if !o.quiet {
		out.Progress = d.show
	}
	return out, d.end
}

// downloads shows people how far a download is: a bar on a terminal, else a
// line when a file begins, now and then, and when it is complete.
type downloads struct {
	a      *app
	file   string
	lastAt time.Time
	bar    *progressbar.ProgressBar
}

func (d *downloads) show(file string, done, total int64) {
	begins := file != d.file
	d.file = file
	if d.a.terminal && d.a.getenv("TERM") != "dumb" {
		if begins {
			d.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(d.a.stderr), progressbar.OptionSetWidth(30),
				progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
				progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionSetDescription("downloading "+file))
		}
		if done == 0 {
			_ = d.bar.RenderBlank()
		}
		_ = d.bar.Set64(done)
		return
	}
	if begins || done == total || time.Since(d.lastAt) >= lineInterval {
		d.lastAt = time.Now()
		fmt.Fprintf(d.a.stderr, "disdel: downloading %s, %s\n", file, share(done, total))
	}
}

// end takes the bar of a download that has failed off the line.
func (d *downloads) end() {
	if d.bar != nil && !d.bar.IsFinished() {
		_ = d.bar.Clear()
	}
}

// share says how much of a download is here, in the powers of ten in which such
// sizes are told.
func share(done, total int64) string {
	unit, name := 1e6, "MB"
	if total < 1e6 {
		unit, name = 1e3, "kB"
	}
	return fmt.Sprintf("%.1f of %.1f %s", float64(done)/unit, float64(total)/unit, name)
}
