// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"testing"

	"disdel/internal/job"
	"disdel/internal/nn/kernel"
)

func TestKernelForms(t *testing.T) {
	if got := job.KernelForms(); got[0] != "auto" || !slices.Equal(got[1:], kernel.Forms()) {
		t.Errorf("a job knows %v, the kernels are %v", got, kernel.Forms())
	}
}

// TestKernel: forms of one set train one model, the reference's kernels trained by
// processes that know assembly among them; another set trains another.
func TestKernel(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	digests := map[string]string{}
	for _, form := range job.KernelForms() {
		args := []string{"train", "digits", "--model", "mlp", "--epochs", "1", "--json", "--kernel", form}
		if _, err := kernel.Form(form); form != "auto" && err != nil {
			d.run(args...).want(t, ExitFailed, "kernel "+form+" needs an x86-64 processor with AVX", "same bits")
			continue
		}
		got := d.run(args...).want(t, ExitOK).object(t)
		set := kernel.Best().Name
		if form != "auto" {
			s, err := kernel.Form(form)
			if err != nil {
				t.Fatal(err)
			}
			set = s.Name
		}
		if got["kernel_set"] != set {
			t.Errorf("%s: kernel set %v, want %s", form, got["kernel_set"], set)
		}
		digest := field[string](t, got, "model", "digest")
		if other, ok := digests[set]; ok && other != digest {
			t.Errorf("%s: model %s, %s as another form of %s", form, digest, other, set)
		}
		digests[set] = digest
	}
	if len(digests) != 2 || digests["fma-1"] == digests["generic-1"] {
		t.Errorf("models %v", digests)
	}
	// A model of one set is run by another.
	d.run("infer", "digits", "--kernel", "generic", "--quiet").want(t, ExitOK)
	d.run("infer", "digits", "--kernel", "sse").want(t, ExitUsage, `kernel "sse"`, "auto, avx2, avx512, generic, reference")
}
