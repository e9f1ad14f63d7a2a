// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// markKey is the annotation of everything that this program makes. Nothing
// without it is changed or deleted.
const markKey = "disdel"

// mark is the annotation's value.
type mark struct {
	Format int `json:"format"`
	// Digest is the hexadecimal SHA-256 of what an action is made of, so that it
	// is not sent again, and of its package's seal.
	Digest string `json:"digest,omitempty"`
	// Owner is the package that has this place of its family, see places.go.
	Owner string `json:"owner,omitempty"`
}

const (
	markFormat         = 1
	packageDescription = "Workers of disdel, for one job: distributed deep learning on serverless platforms. Made and deleted by disdel."
	actionDescription  = "One memory size of the worker of disdel: trains, averages, infers, evaluates or measures, as its parameters say."
	// cleanupTimeout bounds what is done after a Deploy that was refused.
	cleanupTimeout = 15 * time.Second
)

// annotations are those of a package or an action.
func annotations(description string, m mark) []keyValue {
	m.Format = markFormat
	return []keyValue{
		{Key: "description", Value: mustJSON(description)},
		{Key: markKey, Value: mustJSON(m)},
		// No key of OpenWhisk's reaches containers.
		{Key: "provide-api-key", Value: json.RawMessage("false")},
	}
}

// marked returns the mark of an entity; false when it is not this program's.
func marked(list []keyValue) (m mark, ours bool) {
	raw := find(list, markKey)
	return m, raw != nil && json.Unmarshal(raw, &m) == nil && m.Format > 0
}

func mustJSON(value any) json.RawMessage {
	raw, err := json.Marshal(value)
	if err != nil {
		panic("BUG: cannot be encoded: " + err.Error())
	}
	return raw
}

// Deploy implements platform.Platform. What exists as it should be is left
// alone, and so are its warm containers.
func (c *Client) Deploy(ctx context.Context, pkg platform.Package) error {
	for _, value := range pkg.Init {
		c.keepSecret(value)
	}
	facts, err := c.discover(ctx)
	if err != nil {
		return fmt.Errorf("deploy %s: %w", clip(pkg.Name, nameMax), err)
	}
	if err := checkPackage(pkg, facts.limits); err != nil {
		return fmt.Errorf("openwhisk: deploy %s: %w", clip(pkg.Name, nameMax), err)
	}
	c.deploying.Lock()
	defer c.deploying.Unlock()
	if c.exec == nil {
		made, err := c.makeExec(facts.runtimes)
		if err != nil {
			return err
		}
		c.exec = &made
	}
	place, created, err := c.claim(ctx, pkg)
	if err != nil {
		return err
	}
	var added []string
	seal := c.seal(pkg.Init)
	for _, action := range pkg.Actions {
		isNew, err := c.putAction(ctx, place, action, facts.logs, seal)
		if err != nil {
			c.undo(ctx, place, created, added, err)
			if created && errors.Is(err, platform.ErrRefused) {
				c.leave(pkg.Name)
			}
			return c.learn(err)
		}
		if isNew {
			added = append(added, action.Name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, action := range pkg.Actions {
		c.actions[actionName{pkg.Name, action.Name}] = action
	}
	return nil
}

// checkPackage says what is wrong with a package before anything is changed.
func checkPackage(pkg platform.Package, l platform.Limits) error {
	if err := checkName("package", pkg.Name); err != nil {
		return err
	}
	if pkg.Name == "default" {
		return fmt.Errorf("%w: package name default is reserved by OpenWhisk", platform.ErrRefused)
	}
	if pkg.Family != "" {
		if err := checkName("package", placeName(pkg.Family, placesMax)); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, a := range pkg.Actions {
		if err := checkName("action", a.Name); err != nil {
			return err
		}
		if seen[a.Name] {
			return fmt.Errorf("%w: two actions are named %s", platform.ErrRefused, a.Name)
		}
		seen[a.Name] = true
		if err := checkAction(a, l); err != nil {
			return fmt.Errorf("%w: action %s: %w", platform.ErrRefused, a.Name, err)
		}
	}
	return nil
}

func checkAction(a platform.Action, l platform.Limits) error {
	switch {
	case a.Memory > l.MemoryMax:
		return fmt.Errorf("memory %v is over the platform's largest action of %v by %v", a.Memory, l.MemoryMax, a.Memory-l.MemoryMax)
	case a.Memory < l.MemoryMin:
		return fmt.Errorf("memory %v is below the platform's smallest action of %v by %v", a.Memory, l.MemoryMin, l.MemoryMin-a.Memory)
	case a.Memory%job.MB != 0:
		return fmt.Errorf("memory of %d bytes is not a multiple of %v", int64(a.Memory), job.MB)
	case a.Timeout > l.TimeoutMax:
		return fmt.Errorf("timeout %v is over the platform's %v by %v", a.Timeout, l.TimeoutMax, a.Timeout-l.TimeoutMax)
	case a.Timeout < l.TimeoutMin:
		return fmt.Errorf("timeout %v is below the platform's %v by %v", a.Timeout, l.TimeoutMin, l.TimeoutMin-a.Timeout)
	case a.Timeout%time.Millisecond != 0:
		return fmt.Errorf("timeout %v is not in whole milliseconds", a.Timeout)
	}
	return nil
}

// put asks whether an entity is there, and writes it if it is not, or not as it
// should be. view decodes what is there, look says whether it is ours and as it
// should be.
func (c *Client) put(ctx context.Context, what, path string, query url.Values, body, view any, look func() (ours, same bool)) (created bool, err error) {
	get := request{method: http.MethodGet, path: path, query: query}
	a, err := c.do(ctx, get)
	if err != nil {
		return false, err
	}
	overwrite := "false"
	switch a.status {
	case http.StatusNotFound:
		if !isAPIError(a.body) {
			return false, c.unavailable(get, a)
		}
	case http.StatusOK:
		if err := c.decode(get, a, view); err != nil {
			return false, err
		}
		ours, same := look()
		if !ours {
			return false, fmt.Errorf("%w: there is %s already, and disdel did not make it; delete it, or use another namespace", errForeign, what)
		}
		if same {
			return false, nil
		}
		overwrite = "true"
	default:
		return false, c.failure(get, a)
	}
	r := request{
		method: http.MethodPut, path: path, query: url.Values{"overwrite": {overwrite}}, body: body,
		timeout: c.cfg.RequestTimeout + uploadExtra, most: codeMax + answerMax, // the answer repeats the code
	}
	a, err = c.do(ctx, r)
	switch {
	case err != nil:
		return false, err
	case a.status == http.StatusConflict:
		return false, fmt.Errorf("%w: %s was changed by somebody else meanwhile: %s", errConflict, what, c.said(a))
	case a.status != http.StatusOK:
		return false, c.failure(r, a)
	}
	return overwrite == "false", nil
}

// putPackage writes a package under the name place. One that has a place of its
// family is that package's alone.
func (c *Client) putPackage(ctx context.Context, place string, pkg platform.Package) (created bool, err error) {
	owner := ""
	if place != pkg.Name {
		owner = pkg.Name
	}
	body := packageBody{Parameters: []keyValue{}, Annotations: annotations(packageDescription, mark{Owner: owner})}
	for _, name := range slices.Sorted(maps.Keys(pkg.Init)) {
		body.Parameters = append(body.Parameters, keyValue{Key: name, Value: mustJSON(pkg.Init[name]), Init: true})
	}
	var view packageView
	return c.put(ctx, "a package "+place, c.path("packages", place), nil, body, &view, func() (ours, same bool) {
		m, ours := marked(view.Annotations)
		return ours && m.Owner == owner, sameParameters(view.Parameters, body.Parameters) && !view.Publish
	})
}

// sameParameters compares lists of parameters, whatever their order.
func sameParameters(a, b []keyValue) bool {
	if len(a) != len(b) {
		return false
	}
	for _, want := range b {
		if !slices.ContainsFunc(a, func(got keyValue) bool {
			return got.Key == want.Key && got.Init == want.Init && bytes.Equal(compact(got.Value), compact(want.Value))
		}) {
			return false
		}
	}
	return true
}

func compact(raw json.RawMessage) []byte {
	var value any
	if json.Unmarshal(raw, &value) != nil {
		return raw
	}
	return mustJSON(value)
}

// seal stands for init-only parameters. OpenWhisk gives an action the warm
// containers of an equal one, whatever the parameters of their packages: those
// containers would go on with the other's. The seal is in the action's annotation,
// so actions are equal only where the parameters are. Without the key, with which
// the parameters themselves can be read, it tells nothing of them.
func (c *Client) seal(init map[string]string) []byte {
	sum := hmac.New(sha256.New, []byte(c.user+":"+c.secret))
	_, _ = sum.Write(mustJSON(init)) // a hash takes everything
	return sum.Sum(nil)
}

func (c *Client) putAction(ctx context.Context, pkg string, action platform.Action, logs int64, seal []byte) (created bool, err error) {
	limits := actionLimits{Timeout: action.Timeout.Milliseconds(), Memory: int64(action.Memory / job.MB), Logs: logs}
	sum := sha256.Sum256(slices.Concat(mustJSON(*c.exec), mustJSON(limits), seal))
	digest := hex.EncodeToString(sum[:])
	body := actionBody{
		Exec: *c.exec, Limits: limits, Parameters: []keyValue{}, Annotations: annotations(actionDescription, mark{Digest: digest}),
	}
	var view actionView
	what := fmt.Sprintf("an action %s in package %s", action.Name, pkg)
	query := url.Values{"code": {"false"}}
	return c.put(ctx, what, c.path("actions", pkg, action.Name), query, body, &view, func() (ours, same bool) {
		m, ours := marked(view.Annotations)
		return ours, m.Digest == digest && view.Limits.actionLimits == limits
	})
}

// undo takes back what a Deploy that was refused has made. It works although ctx
// may be done.
func (c *Client) undo(ctx context.Context, pkg string, created bool, added []string, cause error) {
	if !errors.Is(cause, platform.ErrRefused) {
		return // it may be tried again
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for _, name := range added {
		_ = c.erase(ctx, c.path("actions", pkg, name)) // the cause is what matters
	}
	if created {
		_ = c.erase(ctx, c.path("packages", pkg)) // as above
	}
}

// erase deletes an entity; one that is not there is no error.
func (c *Client) erase(ctx context.Context, path string) error {
	r := request{method: http.MethodDelete, path: path, most: codeMax + answerMax}
	a, err := c.do(ctx, r)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusOK, a.status == http.StatusNotFound && isAPIError(a.body):
		return nil
	case a.status == http.StatusConflict:
		return fmt.Errorf("%w: %s: %s", platform.ErrUnavailable, r, c.said(a))
	default:
		return c.failure(r, a)
	}
}

// Remove implements platform.Platform. Calls that run go on by themselves; their
// containers are removed by OpenWhisk when they have been idle for a while.
func (c *Client) Remove(ctx context.Context, pkg string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("openwhisk: remove %s: %w", clip(pkg, nameMax), err)
	}
	if err := checkName("package", pkg); err != nil {
		return err
	}
	c.deploying.Lock()
	defer c.deploying.Unlock()
	place, view, err := c.find(ctx, pkg)
	if err != nil {
		return err
	}
	if view == nil {
		c.forget(pkg)
		return nil
	}
	var foreign []string
	for _, action := range view.Actions {
		if _, ours := marked(action.Annotations); !ours {
			foreign = append(foreign, action.Name)
			continue
		}
		if err := c.erase(ctx, c.path("actions", place, action.Name)); err != nil {
			return err
		}
	}
	if len(foreign) > 0 {
		c.forget(pkg)
		return fmt.Errorf("%w: package %s has actions that disdel did not make (%s); it was left with them",
			platform.ErrRefused, place, clip(fmt.Sprint(foreign), quoteMax))
	}
	if err := c.erase(ctx, c.path("packages", place)); err != nil {
		return err
	}
	c.forget(pkg)
	return nil
}

// forget ends the waiting for all calls of a package.
func (c *Client) forget(pkg string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.places, pkg)
	for name := range c.actions {
		if name.pkg == pkg {
			delete(c.actions, name)
		}
	}
	kept := c.order[:0]
	for _, id := range c.order {
		k := c.calls[id]
		if k.name.pkg != pkg {
			kept = append(kept, id)
			continue
		}
		delete(c.calls, id)
		k.gone = true
		if !k.closed && !k.seen {
			k.closed = true
			k.out = platform.Outcome{
				Kind: platform.Cancelled, Message: "its package was removed", Usage: platform.Usage{Limit: k.action.Memory},
			}
			close(k.ended)
		}
	}
	c.order = kept
}
