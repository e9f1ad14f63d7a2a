// SPDX-License-Identifier: Apache-2.0

package platformtest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// The abilities are optional: a platform without one passes its case by not
// having it.

func testSecrets(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	outcome := b.want(b.call("p", "a", map[string]any{"role": "report"}), platform.Success)
	report := decode[struct {
		Environ []string
		Init    map[string]string
		Args    []string
		Sum     string
	}](b.T, outcome)
	// The platform may take secrets out of results, so the worker says what it got
	// by its digest.
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(secret))); report.Sum != want {
		b.Errorf("worker got the init-only parameters %v", report.Init)
	}
	for _, name := range []string{"__OW_NAMESPACE", "__OW_ACTION_NAME", "__OW_ACTION_VERSION", "__OW_ACTIVATION_ID", "__OW_DEADLINE"} {
		if report.Init[name] == "" {
			b.Errorf("worker got no %s", name)
		}
	}
	for _, text := range slices.Concat(report.Environ, report.Args) {
		if strings.Contains(text, secret) || strings.Contains(text, "[redacted]") {
			b.Errorf("an init-only parameter is in the worker's environment or command line: %s", text)
		}
	}
	// The worker prints it and dies; await checks the message.
	lost := b.want(b.call("p", "a", map[string]any{"role": "exit", "code": 1}), platform.Lost)
	if !b.traits.VagueDeaths && !strings.Contains(lost.Message, "redacted") {
		b.Errorf("message %q does not show the worker's output", lost.Message)
	}
}

func testLogs(b *bench) {
	reader, ok := b.platform.(platform.LogReader)
	if !ok {
		return
	}
	b.deploy("p", platform.Action{Name: "a"})
	for _, text := range []string{"first\nof two", "second"} {
		id := b.invoke("p", "a", map[string]any{"role": "print", "text": text})
		b.want(b.await(id), platform.Success)
		b.settle()
		lines, err := reader.Logs(b.Context(), id)
		want := append(strings.Split(text, "\n"), "secret: [redacted]")
		if b.traits.VagueLogs {
			if err != nil || len(lines) == 0 || strings.Contains(strings.Join(lines, ""), secret) {
				b.Errorf("logs are %q, %v", lines, err)
			}
			continue
		}
		// Lines of two streams may be in another order than they were printed in.
		slices.Sort(lines)
		slices.Sort(want)
		if err != nil || !slices.Equal(lines, want) {
			b.Errorf("logs are %q, %v, want %q", lines, err, want)
		}
	}
	id := b.invoke("p", "a", map[string]any{"role": "print", "text": strings.Repeat("a long line\n", 20000)})
	b.want(b.await(id), platform.Success)
	lines, err := reader.Logs(b.Context(), id)
	if err != nil || len(lines) == 0 || len(lines) > 1000 {
		b.Errorf("%d lines are kept, %v", len(lines), err)
	}
	_, err = reader.Logs(b.Context(), "unknown")
	b.wantError(err, platform.ErrNotFound)
}

func testGrow(b *bench) {
	grower, ok := b.platform.(platform.Grower)
	if !ok {
		return
	}
	least := b.slot
	b.deploy("p", platform.Action{Name: "a"})
	b.want(b.call("p", "a", nil), platform.Success) // now a container is warm, and the next call runs at once
	running := b.occupy("p", "a")
	for _, step := range []struct{ ask, want int }{{1, 1}, {2, 2}, {1, 2}} {
		got, err := grower.Grow(b.Context(), running, least*job.Bytes(step.ask))
		if err != nil || got != least*job.Bytes(step.want) {
			b.Fatalf("grow to %d x %v: %v, %v, want %d x", step.ask, least, got, err, step.want)
		}
	}
	// One slot is left: the second call takes it, and nothing can grow.
	second := b.occupy("p", "a")
	third := b.invoke("p", "a", nil)
	if got, err := grower.Grow(b.Context(), second, b.limits.MemoryMax); err != nil || got != least {
		b.Errorf("grow in a full pool: %v, %v, want %v", got, err, least)
	}
	if err := b.platform.Cancel(b.Context(), running); err != nil {
		b.Fatal(err)
	}
	if outcome := b.want(b.await(running), platform.Cancelled); outcome.Usage.Limit != 2*least {
		b.Errorf("limit of a grown container is %v", outcome.Usage.Limit)
	}
	b.want(b.await(third), platform.Success)
	_, err := grower.Grow(b.Context(), "unknown", least)
	b.wantError(err, platform.ErrNotFound)
}

func testPrewarm(b *bench) {
	prewarmer, ok := b.platform.(platform.Prewarmer)
	if !ok {
		return
	}
	b.deploy("p", platform.Action{Name: "a"})
	for range 2 {
		if err := prewarmer.Prewarm(b.Context(), "p", "a", 5); err != nil { // more than there is room for
			b.Fatal(err)
		}
	}
	ids := []platform.Activation{b.invoke("p", "a", nil), b.invoke("p", "a", nil)}
	for _, id := range ids {
		if outcome := b.want(b.await(id), platform.Success); outcome.Usage.Cold {
			b.Errorf("call after prewarming is cold: %+v", outcome.Usage)
		}
	}
	b.wantError(prewarmer.Prewarm(b.Context(), "p", "unknown", 1), platform.ErrNotFound)
}
