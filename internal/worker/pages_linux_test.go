// SPDX-License-Identifier: Apache-2.0

package worker

import "testing"

// TestShed_KeepsWhatWasWritten: the program goes on after its pages are gone, and there
// are some; where a loader writes to read-only data, that stays.
func TestShed_KeepsWhatWasWritten(t *testing.T) {
	pages := programPages()
	for i, r := range pages {
		if r.to <= r.from || i > 0 && r.from < pages[i-1].to {
			t.Errorf("range %d is %#x to %#x, after %v", i, r.from, r.to, pages[:i])
		}
	}
	if len(pages) == 0 {
		t.Fatal("no pages of the program")
	}
	shed()
	if resident() == 0 {
		t.Error("what is resident is unknown")
	}
	t.Log(pages)
}
