// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Client is an OpenWhisk, as one key sees it. It has the ability to read logs.
type Client struct {
	cfg       Config
	base      *url.URL
	namespace string
	user      string
	secret    string
	http      *http.Client

	polls chan struct{} // one element for each question that is under way

	asking sync.Mutex // held while the deployment is asked about itself
	facts  *facts

	deploying sync.Mutex // held while a package is changed
	exec      *exec      // of all actions; nil until it is needed

	mu       sync.Mutex
	secrets  platform.Secrets // for redact
	throttle *platform.Throttle
	places   map[string]string              // by package: the name that it has here, if that is another one
	actions  map[actionName]platform.Action // that this client deployed
	proven   job.Bytes                      // the largest action of which a call has run
	calls    map[platform.Activation]*call
	order    []platform.Activation // of calls, oldest first
}

type actionName struct{ pkg, action string }

// call is an accepted call.
type call struct {
	name    actionName
	action  platform.Action
	started time.Time
	// ended is closed when the outcome is decided here: then it is out. A call
	// whose record has been seen keeps none, since the record stays.
	ended  chan struct{}
	out    platform.Outcome
	closed bool // ended is
	gone   bool // its package was removed
	seen   bool // its record was
}

// callsMax bounds the calls that are remembered.
const callsMax = 20000

var (
	_ platform.Platform  = (*Client)(nil)
	_ platform.LogReader = (*Client)(nil)
)

// Open makes a client. It reads the files of a client certificate and sends
// nothing. The caller must Close it.
func Open(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	base, err := parseHost(cfg.Host)
	if err != nil {
		return nil, err
	}
	user, secret, err := splitKey(cfg.Key)
	if err != nil {
		return nil, err
	}
	namespace, err := parseNamespace(cfg.Namespace)
	if err != nil {
		return nil, err
	}
	if cfg.Image != "" && cfg.Kind != "" {
		return nil, fmt.Errorf("%w: both an image and a kind are given; an image is of the kind blackbox", ErrConfig)
	}
	if cfg.PoolMemory < 0 || cfg.Processors < 0 || cfg.QueueMax < 0 || cfg.RequestTimeout < 0 {
		return nil, fmt.Errorf("%w: a negative size, number or time", ErrConfig)
	}
	transport, err := cfg.transport()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, base: base, namespace: namespace, user: user, secret: secret,
		http: &http.Client{
			Transport: transport,
			// Sending on could take the key to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		polls:   make(chan struct{}, pollsAtOnce),
		places:  map[string]string{},
		actions: map[actionName]platform.Action{},
		calls:   map[platform.Activation]*call{},
	}
	c.keepSecret(user + ":" + secret)
	c.keepSecret(secret)
	return c, nil
}

// Close releases connections. What is deployed or runs stays.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Name implements platform.Platform.
func (*Client) Name() string { return "openwhisk" }

// Address is where the deployment is, without the key.
func (c *Client) Address() string { return c.base.String() }

// path is the path of an entity of the namespace.
func (c *Client) path(parts ...string) string {
	all := []string{"/api", c.cfg.APIVersion, "namespaces", c.namespace}
	for _, part := range append(all[3:4:4], parts...) {
		all = append(all, url.PathEscape(part))
	}
	return strings.Join(append(all[:3:3], all[4:]...), "/")
}

// Invoke implements platform.Platform. Refusals because of too many calls are
// [platform.Throttle]. With ErrUnavailable the call may run.
func (c *Client) Invoke(ctx context.Context, invoked platform.Call) (platform.Activation, error) {
	name := actionName{invoked.Package, invoked.Action}
	op := "openwhisk: invoke " + name.String()
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	facts, err := c.discover(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	params, err := checkParams(invoked.Params, facts.limits.PayloadMax)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	c.mu.Lock()
	action, known := c.actions[name]
	c.mu.Unlock()
	if !known {
		return "", fmt.Errorf("%s: %w: it was not deployed", op, platform.ErrNotFound)
	}
	if throttle := c.throttleNow(); throttle != nil {
		return "", fmt.Errorf("%s: %w", op, throttle)
	}
	r := request{
		method: http.MethodPost, path: c.path("actions", c.place(name.pkg), name.action),
		query: url.Values{"blocking": {"false"}, "result": {"false"}}, body: params,
	}
	started := time.Now()
	a, err := c.do(ctx, r)
	accepted := a.status == http.StatusAccepted || a.status == http.StatusOK
	if err != nil && !accepted {
		return "", err
	}
	if !accepted {
		return "", fmt.Errorf("%s: %w", op, c.failure(r, a))
	}
	// The header is enough if the body was lost on the way.
	var body struct{ ActivationID string }
	if err != nil || json.Unmarshal(a.body, &body) != nil {
		body.ActivationID = ""
	}
	id := cmp.Or(body.ActivationID, a.header.Get("X-Openwhisk-Activation-Id"))
	if !validID(id) {
		return "", fmt.Errorf("%s: %w: it was accepted, and the answer names no activation: %s", op, platform.ErrUnavailable, c.said(a))
	}
	c.remember(platform.Activation(id), &call{name: name, action: action, started: started, ended: make(chan struct{})})
	return platform.Activation(id), nil
}

func (n actionName) String() string { return n.pkg + "/" + n.action }

// checkParams says whether the platform takes parameters, and returns them as
// they are sent.
func checkParams(params json.RawMessage, most job.Bytes) (json.RawMessage, error) {
	if len(params) == 0 {
		return json.RawMessage("{}"), nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(params, &object); err != nil || object == nil {
		return nil, fmt.Errorf("%w: parameters are not a JSON object", platform.ErrRefused)
	}
	if most > 0 && job.Bytes(len(params)) > most {
		return nil, fmt.Errorf("%w: parameters of %v exceed the platform's payload limit of %v by %v: put data into the store",
			platform.ErrRefused, job.Bytes(len(params)), most, job.Bytes(len(params))-most)
	}
	return params, nil
}

// validID says whether a text can be an activation's id.
func validID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

func (c *Client) remember(id platform.Activation, k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[id] = k
	c.order = append(c.order, id)
	for len(c.order) > callsMax {
		delete(c.calls, c.order[0])
		c.order = c.order[1:]
	}
}

func (c *Client) call(id platform.Activation) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	if k == nil || k.gone {
		return nil, fmt.Errorf("openwhisk: activation %s: %w", clip(string(id), 64), platform.ErrNotFound)
	}
	return k, nil
}

// decide ends a call here, unless its record has been seen or it has ended.
func (c *Client) decide(k *call, out platform.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !k.closed && !k.seen {
		k.out, k.closed = out, true
		close(k.ended)
	}
}

// Cancel implements platform.Platform: from now on nobody waits for the call,
// which goes on by itself.
func (c *Client) Cancel(ctx context.Context, id platform.Activation) error {
	k, err := c.call(id)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("openwhisk: cancel %s: %w", id, err)
	}
	// It may have ended by itself. What cannot be learned now does not matter.
	if _, found, err := c.record(ctx, id); err == nil && found {
		c.mu.Lock()
		k.seen = true
		c.mu.Unlock()
	}
	c.decide(k, platform.Outcome{
		Kind: platform.Cancelled, Message: "cancelled; OpenWhisk lets the call itself go on until it ends or its time limit comes",
		Usage: platform.Usage{Limit: k.action.Memory},
	})
	return nil
}
