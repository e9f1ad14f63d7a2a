// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

var epoch = time.Date(2020, 7, 1, 0, 0, 0, 0, time.UTC)

// drive feeds messages to a container, a second apart, and returns it with a
// trace of "Message -> State: commands".
func drive(messages ...message) (container, []string, []command) {
	c := container{
		id: "c1", memory: 128 * job.MB, booked: 128 * job.MB,
		work:   &deployment{pkg: "p", action: "a", version: 1, memory: 128 * job.MB, timeout: time.Minute},
		timing: timing{startTimeout: time.Minute, pauseGrace: 10 * time.Second, idleTimeout: 10 * time.Minute},
	}
	var trace []string
	var settled []command
	for i, m := range messages {
		next, commands := c.step(m, epoch.Add(time.Duration(i)*time.Second))
		c = next
		var names []string
		for _, cmd := range commands {
			name := cmd.kind.String()
			if cmd.kind == cmdSettle {
				name += "(" + string(cmd.outcome.Kind) + ")"
				settled = append(settled, cmd)
			}
			names = append(names, name)
		}
		trace = append(trace, fmt.Sprintf("%v -> %v: %s", m.kind, c.state, strings.Join(names, " ")))
	}
	return c, trace, settled
}

func runMsg() message {
	return message{kind: msgRun, call: &call{id: "x", pkg: "p", action: "a", submitted: epoch}}
}

func TestContainerLife(t *testing.T) {
	started := message{kind: msgPreWarmCompleted, pauses: true}
	inited := message{kind: msgInitCompleted}
	ran := message{kind: msgRunCompleted, answer: Answer{Kind: platform.Success}}
	gone := message{kind: msgContainerRemoved}
	deadline := message{kind: msgDeadline}
	died := message{kind: msgHealthPing}
	paused := message{kind: msgContainerPaused}
	cancelled := message{kind: msgRemove, verdict: verdict{kind: platform.Cancelled, message: "cancelled"}}
	notSent := message{kind: msgRunCompleted, err: fmt.Errorf("x: %w", ErrNotSent)}
	broke := errors.New("connection broke")

	for name, c := range map[string]struct {
		messages []message
		want     string
	}{
		"cold call, then warm": {
			[]message{runMsg(), started, inited, ran, runMsg(), ran},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|" +
				"RunCompleted -> Ready: settle(success) NeedWork|Run -> Running: run|RunCompleted -> Ready: settle(success) NeedWork",
		},
		"prewarmed": {
			[]message{{kind: msgStart}, started, runMsg(), inited, ran},
			"Start -> Starting: start|PreWarmCompleted -> Started: NeedWork|Run -> Running: init|" +
				"InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork",
		},
		"call joins a prewarm under way": {
			[]message{{kind: msgStart}, runMsg(), started, inited},
			"Start -> Starting: start|Run -> Starting: |PreWarmCompleted -> Running: init|InitCompleted -> Running: run",
		},
		"prewarm without use": {
			[]message{{kind: msgStart}, started, deadline, gone},
			"Start -> Starting: start|PreWarmCompleted -> Started: NeedWork|Deadline -> Removing: kill|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"pause, resume": {
			[]message{runMsg(), started, inited, ran, deadline, paused, runMsg(), ran},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork|" +
				"Deadline -> Pausing: pause|ContainerPaused -> Paused: |Run -> Running: resume+run|RunCompleted -> Ready: settle(success) NeedWork",
		},
		"call while pausing": {
			[]message{runMsg(), started, inited, ran, deadline, runMsg(), paused},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork|" +
				"Deadline -> Pausing: pause|Run -> Pausing: |ContainerPaused -> Running: resume+run",
		},
		"call while pausing, which fails": {
			[]message{runMsg(), started, inited, ran, deadline, runMsg(), {kind: msgContainerPaused, err: broke}, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork|" +
				"Deadline -> Pausing: pause|Run -> Pausing: |ContainerPaused -> Removing: kill RescheduleJob|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"idle too long, paused": {
			[]message{runMsg(), started, inited, ran, deadline, paused, deadline, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork|" +
				"Deadline -> Pausing: pause|ContainerPaused -> Paused: |Deadline -> Removing: kill|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"died while idle": {
			[]message{runMsg(), started, inited, ran, died, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork|" +
				"HealthPing -> Removing: kill|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"found dead by a warm call": {
			[]message{runMsg(), started, inited, ran, runMsg(), notSent, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Ready: settle(success) NeedWork|" +
				"Run -> Running: run|RunCompleted -> Removing: kill RescheduleJob|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"answered and died": {
			[]message{runMsg(), started, inited, died, ran, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|HealthPing -> Running: |" +
				"RunCompleted -> Removing: settle(success) kill|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"never seen by a cold worker": {
			[]message{runMsg(), started, inited, notSent, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Removing: kill|ContainerRemoved -> Removing: settle(lost) ContainerRemoved",
		},
		"cannot be started": {
			[]message{runMsg(), {kind: msgPreWarmCompleted, err: broke}},
			"Run -> Starting: start|PreWarmCompleted -> Starting: settle(lost) ContainerRemoved",
		},
		"starts too slowly": {
			[]message{runMsg(), deadline, {kind: msgPreWarmCompleted, err: broke}},
			"Run -> Starting: start|Deadline -> Removing: abort|PreWarmCompleted -> Removing: settle(lost) ContainerRemoved",
		},
		"cancelled while it starts, which cannot be stopped": {
			[]message{runMsg(), cancelled, started, gone},
			"Run -> Starting: start|Remove -> Removing: abort|PreWarmCompleted -> Removing: kill|ContainerRemoved -> Removing: settle(cancelled) ContainerRemoved",
		},
		"refuses /init": {
			[]message{runMsg(), started, {kind: msgInitCompleted, err: fmt.Errorf("x: %w", ErrAnswered)}, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Removing: kill|ContainerRemoved -> Removing: settle(application_error) ContainerRemoved",
		},
		"overruns /init": {
			[]message{runMsg(), started, deadline, {kind: msgInitCompleted, err: broke}, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|Deadline -> Removing: kill|InitCompleted -> Removing: |ContainerRemoved -> Removing: settle(timed_out) ContainerRemoved",
		},
		"overruns /run, answers too late": {
			[]message{runMsg(), started, inited, deadline, ran, gone, gone},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|Deadline -> Removing: kill|RunCompleted -> Removing: |" +
				"ContainerRemoved -> Removing: settle(timed_out) ContainerRemoved|ContainerRemoved -> Removing: ContainerRemoved",
		},
		"out of memory": {
			[]message{runMsg(), started, inited, {kind: msgRunCompleted, err: broke}, {kind: msgContainerRemoved, exit: Exit{OutOfMemory: true}}},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Removing: kill|ContainerRemoved -> Removing: settle(out_of_memory) ContainerRemoved",
		},
		"out of memory beats overrun": {
			[]message{runMsg(), started, inited, deadline, {kind: msgContainerRemoved, exit: Exit{OutOfMemory: true}}},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|Deadline -> Removing: kill|ContainerRemoved -> Removing: settle(out_of_memory) ContainerRemoved",
		},
		"cancel beats out of memory": {
			[]message{runMsg(), started, inited, cancelled, {kind: msgContainerRemoved, exit: Exit{OutOfMemory: true}}},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|Remove -> Removing: kill|ContainerRemoved -> Removing: settle(cancelled) ContainerRemoved",
		},
		"replaced meanwhile": {
			[]message{runMsg(), started, inited, {kind: msgRunCompleted, retire: true, answer: Answer{Kind: platform.Success}}, runMsg()},
			"Run -> Starting: start|PreWarmCompleted -> Running: init|InitCompleted -> Running: run|RunCompleted -> Removing: settle(success) kill|Run -> Removing: RescheduleJob",
		},
		"late and senseless messages": {
			[]message{ran, gone, deadline, runMsg(), ran, paused, started, paused, inited, ran, inited},
			"RunCompleted -> Initialized: |ContainerRemoved -> Initialized: |Deadline -> Initialized: |Run -> Starting: start|RunCompleted -> Starting: |" +
				"ContainerPaused -> Starting: |PreWarmCompleted -> Running: init|ContainerPaused -> Running: |InitCompleted -> Running: run|" +
				"RunCompleted -> Ready: settle(success) NeedWork|InitCompleted -> Ready: ",
		},
	} {
		_, trace, _ := drive(c.messages...)
		if got := strings.Join(trace, "|"); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.ReplaceAll(got, "|", "\n     "), strings.ReplaceAll(c.want, "|", "\n     "))
		}
	}
}

func TestContainerUsage(t *testing.T) {
	// A message each second: Run 0, started 1, inited 2, ran 3.
	_, _, settled := drive(runMsg(), message{kind: msgPreWarmCompleted}, message{kind: msgInitCompleted},
		message{kind: msgRunCompleted, answer: Answer{Kind: platform.Success, Peak: 7, Cache: 3}})
	want := platform.Usage{Container: "c1", Cold: true, Limit: 128 * job.MB, Peak: 7, Cache: 3, Init: 2 * time.Second, Duration: time.Second}
	if got := settled[0].outcome.Usage; got != want {
		t.Errorf("cold usage %+v, want %+v", got, want)
	}
	// Start 0, started 1, Run 2 (submitted at 0), inited 3, ran 4.
	_, _, settled = drive(message{kind: msgStart}, message{kind: msgPreWarmCompleted}, runMsg(), message{kind: msgInitCompleted},
		message{kind: msgRunCompleted, answer: Answer{Kind: platform.Success}})
	want = platform.Usage{Container: "c1", Warmed: true, Limit: 128 * job.MB, Wait: 2 * time.Second, Init: time.Second, Duration: time.Second}
	if got := settled[0].outcome.Usage; got != want {
		t.Errorf("prewarmed usage %+v, want %+v", got, want)
	}
	// The overrun at 3 ends the call; killing takes until 4.
	_, _, settled = drive(runMsg(), message{kind: msgPreWarmCompleted}, message{kind: msgInitCompleted}, message{kind: msgDeadline},
		message{kind: msgContainerRemoved, exit: Exit{OutOfMemory: true, Peak: 5}})
	if got := settled[0].outcome.Usage; got.Duration != time.Second || got.Peak != 128*job.MB {
		t.Errorf("usage of a killed call %+v", got)
	}
}

func TestLostMessageShowsWhy(t *testing.T) {
	_, _, settled := drive(runMsg(), message{kind: msgPreWarmCompleted}, message{kind: msgInitCompleted},
		message{kind: msgRunCompleted, err: errors.New("connection broke")},
		message{kind: msgContainerRemoved, exit: Exit{Status: "exit status 2", Logs: makeLines("one", "panic: out of range", "goroutine 1", "main.go:1", "rest")}})
	const want = "call failed: connection broke: worker ended with exit status 2; its last output: panic: out of range | goroutine 1 | main.go:1"
	if got := settled[0].outcome.Message; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

func makeLines(texts ...string) (lines []Line) {
	for _, text := range texts {
		lines = append(lines, Line{Text: text})
	}
	return lines
}
