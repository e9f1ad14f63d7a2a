// SPDX-License-Identifier: Apache-2.0

//go:build linux

package owner

import "testing"

func TestProcess(t *testing.T) {
	me, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	if Parse(me.String()) != me || me.Dead() {
		t.Errorf("%v is not this living process", me)
	}
	change := func(f func(*Process)) Process { o := me; f(&o); return o }
	for name, c := range map[string]struct {
		process Process
		dead    bool
	}{
		"earlier process of this number": {change(func(o *Process) { o.start = "1" }), true},
		"no such process":                {change(func(o *Process) { o.pid = 1 << 30 }), true},
		"another namespace":              {change(func(o *Process) { o.namespace = "x"; o.start = "1" }), false},
		"another machine":                {change(func(o *Process) { o.machine = "x"; o.boot = "y" }), false},
		"nobody":                         {Parse("somebody else's label"), false},
	} {
		if got := c.process.Dead(); got != c.dead {
			t.Errorf("%s: dead is %v", name, got)
		}
	}
}
