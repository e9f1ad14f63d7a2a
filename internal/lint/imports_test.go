// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "disdel/"

// everything stands for all packages below internal but the commands' own.
const everything = "internal/*"

const (
	cobra    = "github.com/spf13/cobra"
	unixCall = "golang.org/x/sys/unix"
	// cpuFeatures says what the processor can do.
	cpuFeatures = "golang.org/x/sys/cpu"

	redisClient    = "github.com/redis/go-redis/v9*"
	dockerClient   = "github.com/docker/docker/*"
	registryClient = "github.com/google/go-containerregistry/*"
	prometheus     = "github.com/prometheus/client_golang/*"
)

// mayImport says for each package what it may import besides the standard
// library: packages of the module from its root, others by their full path. It
// holds for all files but tests, on all systems.
var mayImport = map[string][]string{
	"cmd/disdel":        {"internal/cli"},
	"cmd/disdel-worker": {"internal/worker"},

	"internal/cli":         {everything, cobra, "github.com/spf13/pflag", "github.com/schollz/progressbar/v3", "golang.org/x/term", unixCall},
	"internal/cli/gendocs": {"internal/cli", cobra + "/doc"},

	"internal/job":                    {},
	"internal/data":                   {"internal/data/fetch", "internal/data/format", "internal/data/shard"},
	"internal/data/fetch":             {},
	"internal/data/format":            {},
	"internal/data/format/formattest": {},
	"internal/data/shard":             {},
	"internal/jsontext":               {},
	"internal/owner":                  {},
	"internal/nn":                     {"internal/jsontext", "internal/nn/kernel", unixCall},
	"internal/nn/kernel":              {cpuFeatures},
	"internal/nn/safetensors":         {},
	"internal/plan":                   {"internal/job", "internal/nn"},
	// nn: a model's specification is read to report its size.
	"internal/control": {"internal/job", "internal/nn", "internal/plan", "internal/platform", "internal/store"},
	"internal/bench":   {"internal/job"},
	"internal/report":  {"internal/bench", "internal/job"},

	"internal/platform":                         {"internal/job"},
	"internal/platform/platformtest":            {"internal/job", "internal/platform"},
	"internal/platform/platformtest/testworker": {unixCall},
	"internal/platform/openwhisk":               {"internal/job", "internal/platform"},
	"internal/platform/pool":                    {"internal/job", "internal/platform"},
	"internal/platform/pool/process":            {"internal/job", "internal/platform", "internal/platform/pool", unixCall},
	"internal/platform/pool/docker": {
		"internal/job", "internal/owner", "internal/platform", "internal/platform/pool", dockerClient, "github.com/docker/go-units", "github.com/containerd/errdefs",
	},
	"internal/platform/whiskapi": {"internal/job", "internal/platform", "internal/platform/pool", prometheus, "github.com/prometheus/common/expfmt"},
	"internal/image":             {"internal/job", registryClient},

	"internal/store":           {"internal/job"},
	"internal/store/dir":       {"internal/job", "internal/store", unixCall},
	"internal/store/redis":     {"internal/job", "internal/store", redisClient},
	"internal/store/mem":       {"internal/job", "internal/store"},
	"internal/store/storetest": {"internal/job", "internal/points", "internal/store"},
	"internal/points":          {},

	"internal/worker": {
		"internal/data/shard", "internal/job", "internal/nn", "internal/nn/kernel", "internal/nn/safetensors",
		"internal/store", "internal/store/dir", "internal/store/redis", unixCall,
	},

	"internal/lint": {},
	"internal/sim":  {},
}

// testsMayImport lists what tests may import from outside the module and the
// standard library.
var testsMayImport = []string{
	"go.uber.org/goleak", "pgregory.net/rapid", unixCall,
	"github.com/google/go-containerregistry/pkg/name", "github.com/google/go-containerregistry/pkg/registry",
	"github.com/google/go-containerregistry/pkg/v1", "github.com/google/go-containerregistry/pkg/v1/remote",
	"github.com/google/go-containerregistry/pkg/v1/tarball", "github.com/google/go-containerregistry/pkg/v1/validate",
	"github.com/docker/docker/api/types/container", "github.com/docker/docker/api/types/filters",
	"github.com/prometheus/common/expfmt", "github.com/prometheus/common/model",
	"github.com/redis/go-redis/v9", "github.com/alicebob/miniredis/v2", "github.com/alicebob/miniredis/v2/server",
}

// workerLinks is all that disdel-worker links besides the standard library: a
// container pays for every page of it.
var workerLinks = []string{
	"cmd/disdel-worker", "internal/data/shard", "internal/job", "internal/jsontext", "internal/nn", "internal/nn/kernel",
	"internal/nn/safetensors", "internal/store", "internal/store/dir", "internal/store/redis", "internal/worker", unixCall, cpuFeatures,
	redisClient, "github.com/cespare/xxhash/v2", "go.uber.org/atomic",
}

// neverLinked is what no program links: the generator of the reference and what
// belongs to tests.
var neverLinked = []string{
	"testing", "testing/*", cobra + "/doc", "github.com/cpuguy83/*", "github.com/russross/*", "go.yaml.in/*",
	"go.uber.org/goleak", "pgregory.net/*", "github.com/alicebob/*", module + "internal/platform/platformtest",
	module + "internal/store/storetest", module + "internal/data/format/formattest", module + "internal/points",
}

// suites are packages for tests only, which import package testing.
var suites = []string{"internal/platform/platformtest", "internal/store/storetest"}

func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".") && importPath != strings.TrimSuffix(module, "/") && !strings.HasPrefix(importPath, module)
}

func matches(pattern, importPath string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(importPath, prefix)
	}
	return importPath == pattern
}

func TestPackagesImportWhatTheyMay(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range readTree(t) {
		if f.test() {
			continue
		}
		seen[f.pkg()] = true
		allowed, known := mayImport[f.pkg()]
		if !known {
			t.Errorf("%s: package %s has no line in mayImport: say what it may import", f.name, f.pkg())
			continue
		}
		for _, path := range f.imports(t) {
			short := strings.TrimPrefix(path, module)
			switch {
			case path == "C":
				t.Errorf("%s imports C: the programs are static", f.name)
			case path == "testing" && !slices.Contains(suites, f.pkg()):
				t.Errorf("%s imports %s, which is for tests", f.name, path)
			case standard(path), slices.ContainsFunc(allowed, func(p string) bool { return matches(p, short) }):
			default:
				t.Errorf("%s imports %s; package %s may import the standard library and %q", f.name, path, f.pkg(), allowed)
			}
		}
	}
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("mayImport has a line for %s, which does not exist", pkg)
		}
	}
}

func TestOnlyCommandsImportTheCommandLine(t *testing.T) {
	for _, f := range readTree(t) {
		for _, path := range f.imports(t) {
			if path == module+"internal/cli" && !strings.HasPrefix(f.pkg(), "cmd/") && !strings.HasPrefix(f.pkg(), "internal/cli") {
				t.Errorf("%s imports %s", f.name, path)
			}
		}
	}
}

func TestTestsImportWhatTheyMay(t *testing.T) {
	for _, f := range readTree(t) {
		if !f.test() {
			continue
		}
		for _, path := range f.imports(t) {
			if !standard(path) && !strings.HasPrefix(path, module) && !slices.Contains(testsMayImport, path) {
				t.Errorf("%s imports %s; tests may import the module, the standard library and %q", f.name, path, testsMayImport)
			}
		}
	}
}

func TestWorkerLinksLittle(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		links := linked(t, system, "cmd/disdel-worker")
		for _, path := range links.order {
			if !links.ours(path) || slices.ContainsFunc(workerLinks, func(p string) bool { return matches(p, strings.TrimPrefix(path, module)) }) {
				continue
			}
			t.Errorf("%s: disdel-worker links %s: %s", system, path, links.why(path))
		}
	}
}

func TestProgramsLinkNoTools(t *testing.T) {
	for _, program := range []string{"cmd/disdel", "cmd/disdel-worker"} {
		links := linked(t, "linux", program)
		for _, path := range links.order {
			if slices.ContainsFunc(neverLinked, func(p string) bool { return matches(p, path) }) {
				t.Errorf("%s links %s: %s", program, path, links.why(path))
			}
		}
	}
}

// closure is all that a program links.
type closure struct {
	root     string
	order    []string
	imports  map[string][]string
	standard map[string]bool
}

// ours says that path is of the module or of a dependency.
func (c closure) ours(path string) bool { return !c.standard[path] }

// why is a shortest chain of imports from the program to path.
func (c closure) why(path string) string {
	from := map[string]string{c.root: ""}
	for queue := []string{c.root}; len(queue) > 0; queue = queue[1:] {
		for _, next := range c.imports[queue[0]] {
			if _, known := from[next]; !known {
				from[next] = queue[0]
				queue = append(queue, next)
			}
		}
	}
	var chain []string
	for at := path; at != ""; at = from[at] {
		chain = append(chain, at)
	}
	slices.Reverse(chain)
	return strings.Join(chain, " -> ")
}

func linked(t *testing.T, system, program string) closure {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,Standard", "./"+program)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH=arm64", "CGO_ENABLED=0", "GOPROXY=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	c := closure{root: module + program, imports: map[string][]string{}, standard: map[string]bool{}}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
			Standard   bool
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v: %v", cmd, err)
		}
		c.order = append(c.order, p.ImportPath)
		c.imports[p.ImportPath], c.standard[p.ImportPath] = p.Imports, p.Standard
	}
	if len(c.order) == 0 {
		t.Fatalf("%v: lists nothing", cmd)
	}
	return c
}
