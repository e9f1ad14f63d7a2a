// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"bytes"
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

const (
	licenceLine = "// SPDX-License-Identifier: Apache-2.0\n\n"
	maxLines    = 600
)

func TestFilesStartWithTheLicence(t *testing.T) {
	for _, f := range readTree(t) {
		if !bytes.HasPrefix(f.text, []byte(licenceLine)) {
			t.Errorf("%s: does not start with %q", f.name, licenceLine)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	for _, f := range readTree(t) {
		if lines := bytes.Count(f.text, []byte{'\n'}); lines > maxLines {
			t.Errorf("%s: %d lines; want at most %d: divide it", f.name, lines, maxLines)
		}
	}
}

// TestPackagesSayWhatTheyHide: a package has its comment in doc.go, a program
// in main.go.
func TestPackagesSayWhatTheyHide(t *testing.T) {
	comments, found := map[string]string{}, map[string]bool{}
	for _, f := range readTree(t) {
		if f.test() {
			continue
		}
		where, start := "doc.go", "Package "+f.syntax.Name.Name+" "
		if f.syntax.Name.Name == "main" {
			where, start = "main.go", "Command "+path.Base(f.pkg())+" "
		}
		comments[f.pkg()] = where
		if f.name == f.pkg()+"/"+where {
			found[f.pkg()] = true
			if !strings.HasPrefix(f.syntax.Doc.Text(), start) {
				t.Errorf("%s: the package comment does not start with %q", f.name, start)
			}
		} else if f.syntax.Doc != nil {
			t.Errorf("%s: a package comment outside %s", f.name, where)
		}
	}
	for pkg, where := range comments {
		if !found[pkg] {
			t.Errorf("%s: has no %s", pkg, where)
		}
	}
}

// TestTestsDoNotSleep: time passes by itself only in a bubble of
// testing/synctest, which this sees package by package; elsewhere a test that
// sleeps is slow, flaky or both.
func TestTestsDoNotSleep(t *testing.T) {
	files, bubbles := readTree(t), map[string]bool{}
	for _, f := range files {
		bubbles[f.pkg()] = bubbles[f.pkg()] || slices.Contains(f.imports(t), "testing/synctest")
	}
	for _, f := range files {
		if !f.test() || bubbles[f.pkg()] {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && selects(call.Fun, "time", "Sleep") {
				t.Errorf("%s: calls time.Sleep outside a bubble of testing/synctest", f.name)
			}
			return true
		})
	}
}

// TestTestsDoNotSkip: a test that skips itself passes without having looked.
func TestTestsDoNotSkip(t *testing.T) {
	for _, f := range readTree(t) {
		// The names of the parameters around a call that are tests, and those that
		// are not: what a *rapid.T skips is one random step that does not apply.
		var scopes []map[string]bool
		var visit func(n ast.Node) bool
		inside := func(kind *ast.FuncType, body *ast.BlockStmt) {
			if body == nil {
				return
			}
			scopes = append(scopes, testParameters(kind))
			ast.Inspect(body, visit)
			scopes = scopes[:len(scopes)-1]
		}
		visit = func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				inside(n.Type, n.Body)
				return false
			case *ast.FuncLit:
				inside(n.Type, n.Body)
				return false
			case *ast.CallExpr:
				if name, method := receiver(n); slices.Contains([]string{"Skip", "SkipNow", "Skipf"}, method) && isTest(scopes, name) {
					t.Errorf("%s: calls %s.%s: make the test work everywhere, or leave it out by a build constraint", f.name, name, method)
				}
			}
			return true
		}
		ast.Inspect(f.syntax, visit)
	}
}

// isTest says whether the innermost parameter of that name is a test.
func isTest(scopes []map[string]bool, name string) bool {
	for _, scope := range slices.Backward(scopes) {
		if test, known := scope[name]; known {
			return test
		}
	}
	return false
}

func testParameters(kind *ast.FuncType) map[string]bool {
	names := map[string]bool{}
	for _, p := range kind.Params.List {
		of := p.Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		test := slices.ContainsFunc([]string{"T", "B", "F", "TB"}, func(name string) bool { return selects(of, "testing", name) })
		for _, name := range p.Names {
			names[name.Name] = test
		}
	}
	return names
}

func receiver(call *ast.CallExpr) (name, method string) {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return x.Name, s.Sel.Name
}

func selects(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}
