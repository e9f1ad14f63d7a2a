// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"disdel/internal/job"
)

// pair is a parameter or an annotation.
type pair struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	Init  bool            `json:"init,omitempty"`
}

func find(pairs []pair, key string) (json.RawMessage, bool) {
	for _, p := range pairs {
		if p.Key == key {
			return p.Value, true
		}
	}
	return nil, false
}

// truthy reports whether an annotation is set to something that counts as yes,
// and what it is when it is missing.
func truthy(pairs []pair, key string, missing bool) bool {
	raw, ok := find(pairs, key)
	if !ok {
		return missing
	}
	switch text := string(raw); text {
	case "null", "false", "0", `""`:
		return false
	default:
		return true
	}
}

// merge returns pairs in which those of later replace those of earlier, and later
// ones of later those of its own.
func merge(earlier, later []pair) []pair {
	merged := slices.Clone(earlier)
	at := make(map[string]int, len(earlier)+len(later))
	for i, p := range earlier {
		at[p.Key] = i
	}
	for _, p := range later {
		if i, there := at[p.Key]; there {
			merged[i] = p
		} else {
			at[p.Key] = len(merged)
			merged = append(merged, p)
		}
	}
	return merged
}

// without returns pairs but those with the names.
func without(pairs []pair, names []string) []pair {
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
	}
	return slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return gone[p.Key] })
}

func sizeOf(pairs []pair) (size int64) {
	for _, p := range pairs {
		size += int64(len(p.Key) + len(p.Value))
	}
	return size
}

// checkPairs refuses parameters or annotations that are more than an entity may
// have.
func checkPairs(field string, pairs []pair) error {
	if len(pairs) > pairsMax {
		return tooMany(field)
	}
	if size := sizeOf(pairs); size > int64(parametersMax) {
		return tooLarge(field, size, int64(parametersMax))
	}
	return nil
}

// pairsMax bounds the parameters of an entity, and its annotations: a great many
// tiny ones would take far more memory than their texts.
const pairsMax = 10000

// pairBytes is what a pair takes beside its texts.
const pairBytes = 64

// keptBytes is about what pairs take in memory.
func keptBytes(pairs []pair) int64 { return sizeOf(pairs) + pairBytes*int64(len(pairs)) }

// version is a semantic version.
type version [3]int

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v version) next() version { return version{v[0], v[1], v[2] + 1} }

func parseVersion(text string) (v version, err error) {
	parts := strings.Split(text, ".")
	if len(parts) > len(v) {
		return v, malformed(textVersion)
	}
	for i, part := range parts {
		if v[i], err = strconv.Atoi(part); err != nil || v[i] < 0 {
			return v, malformed(textVersion)
		}
	}
	if v == (version{}) {
		return v, malformed(textVersion)
	}
	return v, nil
}

// binding is what a package stands for.
type binding struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// packageEntity is a package; it never changes.
type packageEntity struct {
	namespace, name string
	version         version
	publish         bool
	binding         *binding
	parameters      []pair
	annotations     []pair
	updated         time.Time
}

func (p *packageEntity) full() string { return p.namespace + "/" + p.name }

// size is about what p takes in memory; 0 for nil.
func (p *packageEntity) size() int64 {
	if p == nil {
		return 0
	}
	return keptBytes(p.parameters) + keptBytes(p.annotations)
}

// actionLimits are an action's limits.
type actionLimits struct {
	timeout      time.Duration
	memory, logs job.Bytes
	concurrency  int
}

func (l actionLimits) json() map[string]any {
	return map[string]any{
		"timeout": l.timeout.Milliseconds(), "memory": int64(l.memory / job.MB), "logs": int64(l.logs / job.MB), "concurrency": l.concurrency,
	}
}

// exec says what an action runs.
type exec struct {
	kind, image, code, main string
	binary                  bool
}

func (e exec) size() int64 { return int64(len(e.code) + len(e.main) + len(e.image)) }

func (e exec) json(code bool) map[string]any {
	out := map[string]any{"kind": e.kind, "binary": e.binary}
	if e.image != "" {
		out["image"] = e.image
	}
	if code && (e.code != "" || e.kind != blackbox) {
		out["code"] = e.code
	}
	if e.main != "" {
		out["main"] = e.main
	}
	return out
}

// blackbox is the kind of actions that bring their own image.
const blackbox = "blackbox"

// actionEntity is an action; it never changes.
type actionEntity struct {
	namespace, pkg, name string // pkg "" is none
	version              version
	publish              bool
	exec                 exec
	parameters           []pair
	annotations          []pair
	limits               actionLimits
	updated              time.Time
}

// size is about what a takes in memory; 0 for nil.
func (a *actionEntity) size() int64 {
	if a == nil {
		return 0
	}
	return a.exec.size() + keptBytes(a.parameters) + keptBytes(a.annotations)
}

// place is the namespace with the package.
func (a *actionEntity) place() string {
	if a.pkg == "" {
		return a.namespace
	}
	return a.namespace + "/" + a.pkg
}

// path is the action's name in full, without a leading slash.
func (a *actionEntity) path() string { return a.place() + "/" + a.name }

func (a *actionEntity) json(code bool, parameters []pair) map[string]any {
	return map[string]any{
		"namespace": a.place(), "name": a.name, "version": a.version.String(), "publish": a.publish,
		"exec": a.exec.json(code), "parameters": orEmpty(parameters), "annotations": orEmpty(a.annotations),
		"limits": a.limits.json(), "updated": a.updated.UnixMilli(),
	}
}

func (a *actionEntity) row() map[string]any {
	return map[string]any{
		"namespace": a.place(), "name": a.name, "version": a.version.String(), "publish": a.publish,
		"annotations": orEmpty(a.annotations), "limits": a.limits.json(),
		"exec": map[string]any{"binary": a.exec.binary}, "updated": a.updated.UnixMilli(),
	}
}

func orEmpty(pairs []pair) []pair {
	if pairs == nil {
		return []pair{}
	}
	return pairs
}

// entities are all packages and actions.
type entities struct {
	mu       sync.Mutex
	packages map[[2]string]*packageEntity // by namespace, name
	actions  map[[3]string]*actionEntity  // by namespace, package, name
	bytes    int64                        // the sum of their sizes
	cfg      Config
}

func makeEntities(cfg Config) entities {
	return entities{packages: map[[2]string]*packageEntity{}, actions: map[[3]string]*actionEntity{}, cfg: cfg}
}

func (e *entities) getPackage(namespace, name string) *packageEntity {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.packages[[2]string{namespace, name}]
}

func (e *entities) getAction(namespace, pkg, name string) *actionEntity {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.actions[[3]string{namespace, pkg, name}]
}

// full refuses what would be kept beyond a bound.
func full(what string, most int) error {
	return failure(http.StatusRequestEntityTooLarge, "This server keeps at most %d %s: delete some.", most, what)
}

// resize takes note that an entity changes its size, or refuses that. e.mu is
// held. What needs no more room than before is always taken.
func (e *entities) resize(old, next int64) error {
	if next > old && e.bytes+next-old > int64(e.cfg.EntityBytesMax) {
		return failure(http.StatusRequestEntityTooLarge,
			"This server keeps at most %v of code, parameters and annotations: delete some actions or packages.", e.cfg.EntityBytesMax)
	}
	e.bytes += next - old
	return nil
}

// putPackage calls change with the package of this name, if there is one, and
// puts what it returns in its place.
func (e *entities) putPackage(namespace, name string, change func(old *packageEntity) (*packageEntity, error)) (*packageEntity, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := [2]string{namespace, name}
	old := e.packages[key]
	if old == nil && e.actions[[3]string{namespace, "", name}] != nil {
		return nil, failure(http.StatusConflict, textWrongType)
	}
	next, err := change(old)
	if err != nil {
		return nil, err
	}
	if old == nil && len(e.packages) >= e.cfg.PackageMax {
		return nil, full("packages", e.cfg.PackageMax)
	}
	if err := e.resize(old.size(), next.size()); err != nil {
		return nil, err
	}
	e.packages[key] = next
	return next, nil
}

// putAction does the same for an action.
func (e *entities) putAction(namespace, pkg, name string, change func(old *actionEntity) (*actionEntity, error)) (*actionEntity, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := [3]string{namespace, pkg, name}
	old := e.actions[key]
	if pkg == "" && e.packages[[2]string{namespace, name}] != nil {
		return nil, failure(http.StatusConflict, textWrongType)
	}
	if pkg != "" && e.packages[[2]string{namespace, pkg}] == nil {
		return nil, notFound()
	}
	next, err := change(old)
	if err != nil {
		return nil, err
	}
	if old == nil && len(e.actions) >= e.cfg.ActionMax {
		return nil, full("actions", e.cfg.ActionMax)
	}
	if err := e.resize(old.size(), next.size()); err != nil {
		return nil, err
	}
	e.actions[key] = next
	return next, nil
}

// deletePackage deletes a package; force, with its actions.
func (e *entities) deletePackage(namespace, name string, force bool) (*packageEntity, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := [2]string{namespace, name}
	p := e.packages[key]
	if p == nil {
		if e.actions[[3]string{namespace, "", name}] != nil {
			return nil, failure(http.StatusConflict, textWrongType)
		}
		return nil, notFound()
	}
	var inside [][3]string
	for at := range e.actions {
		if at[0] == namespace && at[1] == name {
			inside = append(inside, at)
		}
	}
	if len(inside) > 0 && !force {
		noun := "entities"
		if len(inside) == 1 {
			noun = "entity"
		}
		return nil, failure(http.StatusConflict, "Package not empty (contains %d %s). Set force param or delete package contents.", len(inside), noun)
	}
	for _, at := range inside {
		e.bytes -= e.actions[at].size()
		delete(e.actions, at)
	}
	e.bytes -= p.size()
	delete(e.packages, key)
	return p, nil
}

func (e *entities) deleteAction(namespace, pkg, name string) (*actionEntity, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := [3]string{namespace, pkg, name}
	a := e.actions[key]
	if a == nil {
		if pkg == "" && e.packages[[2]string{namespace, name}] != nil {
			return nil, failure(http.StatusConflict, textWrongType)
		}
		return nil, notFound()
	}
	e.bytes -= a.size()
	delete(e.actions, key)
	return a, nil
}

// listPackages returns packages of a namespace, newest update first.
func (e *entities) listPackages(which func(*packageEntity) bool) []*packageEntity {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*packageEntity
	for _, p := range e.packages {
		if which(p) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *packageEntity) int {
		return cmp.Or(b.updated.Compare(a.updated), strings.Compare(a.full(), b.full()))
	})
	return list
}

func (e *entities) listActions(which func(*actionEntity) bool) []*actionEntity {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*actionEntity
	for _, a := range e.actions {
		if which(a) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *actionEntity) int {
		return cmp.Or(b.updated.Compare(a.updated), strings.Compare(a.path(), b.path()))
	})
	return list
}

// cut returns a page of a list.
func cut[T any](list []T, skip, limit int) []T {
	list = list[min(skip, len(list)):]
	return list[:min(limit, len(list))]
}
