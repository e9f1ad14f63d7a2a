// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// root is the module's folder as seen from this package's tests.
const root = "../.."

// file is one Go file of the module.
type file struct {
	name   string // from the root, with slashes
	text   []byte
	syntax *ast.File
}

func (f file) test() bool { return strings.HasSuffix(f.name, "_test.go") }

// pkg is the folder from the root, which names the package in the rules.
func (f file) pkg() string { return path.Dir(f.name) }

func (f file) imports(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", f.name, spec.Path.Value, err)
		}
		paths = append(paths, p)
	}
	return paths
}

// readTree returns all Go files, parsed, whatever system they are for.
func readTree(t *testing.T) []file {
	t.Helper()
	files, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no Go files below %s", root)
	}
	return files
}

// tree is read once for all tests, which only look at it.
var tree = sync.OnceValues(func() (files []file, err error) {
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != root && (base == "testdata" || base == "bin" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		short, err := filepath.Rel(root, name)
		files = append(files, file{name: filepath.ToSlash(short), text: text, syntax: syntax})
		return err
	})
	return files, err
})
