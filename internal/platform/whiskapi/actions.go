// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"errors"
	"net/http"
	"time"

	"disdel/internal/job"
)

// serveActions serves what is below /namespaces/{namespace}/actions.
func (s *Server) serveActions(r *request, namespace string, path []string) (reply, error) {
	switch {
	case len(path) == 0, len(path) == 1 && path[0] == "":
		if r.Method != http.MethodGet {
			return reply{}, noRoute()
		}
		if namespace != r.user.Namespace {
			return reply{}, forbidden(namespace)
		}
		return s.listActions(r, func(a *actionEntity) bool { return a.namespace == namespace })
	case len(path) == 1:
		return s.serveAction(r, namespace, "", path[0])
	case len(path) == 2 && path[1] == "":
		if r.Method != http.MethodGet {
			return reply{}, noRoute()
		}
		h, err := s.findPackage(r, namespace, path[0])
		if err != nil {
			return reply{}, err
		}
		return s.listActions(r, func(a *actionEntity) bool {
			return a.namespace == h.provider.namespace && a.pkg == h.provider.name
		})
	case len(path) == 2:
		return s.serveAction(r, namespace, path[0], path[1])
	default:
		return reply{}, noRoute()
	}
}

func (s *Server) listActions(r *request, which func(*actionEntity) bool) (reply, error) {
	limit, skip, err := r.page("actions")
	if err != nil {
		return reply{}, err
	}
	count, err := r.boolean("count")
	if err != nil {
		return reply{}, err
	}
	list := s.entities.listActions(which)
	if count {
		return done(map[string]int{"actions": max(0, len(list)-skip)})
	}
	rows := []map[string]any{}
	for _, a := range cut(list, skip, limit) {
		rows = append(rows, a.row())
	}
	return done(rows)
}

// serveAction serves one action; pkg "" is none.
func (s *Server) serveAction(r *request, namespace, pkg, name string) (reply, error) {
	if r.Method == http.MethodPost {
		return s.invoke(r, namespace, pkg, name)
	}
	resource := namespace + "/" + name
	if pkg != "" {
		resource = namespace + "/" + pkg
	}
	own := namespace == r.user.Namespace
	switch r.Method {
	case http.MethodGet:
		code, err := r.booleanOr("code", true)
		if err != nil {
			return reply{}, err
		}
		a, h, err := s.findAction(r, namespace, pkg, name)
		if err != nil {
			return reply{}, err
		}
		return done(a.json(code, h.merged(a)))
	case http.MethodPut, http.MethodDelete:
		if !own {
			return reply{}, forbidden(resource)
		}
		if pkg != "" {
			if p := s.entities.getPackage(namespace, pkg); p == nil {
				return reply{}, notFound()
			} else if p.binding != nil {
				return reply{}, failure(http.StatusBadRequest, textOnBinding)
			}
		}
		if r.Method == http.MethodPut {
			return s.putAction(r, namespace, pkg, name)
		}
		a, err := s.entities.deleteAction(namespace, pkg, name)
		if err != nil {
			return reply{}, err
		}
		return done(a.json(true, a.parameters))
	default:
		return reply{}, noRoute()
	}
}

// merged are an action's parameters with those that it inherits.
func (h *home) merged(a *actionEntity) []pair {
	if h == nil {
		return a.parameters
	}
	return merge(h.parameters(), a.parameters)
}

// checkAccess refuses an action in a place that the user may not read. The home
// is nil for an action in no package.
func (s *Server) checkAccess(r *request, namespace, pkg, name string) (*home, error) {
	if pkg != "" {
		h, err := s.findPackage(r, namespace, pkg)
		return &h, err
	}
	if namespace != r.user.Namespace {
		return nil, forbidden(namespace + "/" + name)
	}
	return nil, nil
}

// lookUp finds an action in a place that may be read.
func (s *Server) lookUp(h *home, namespace, name string) (*actionEntity, error) {
	if h != nil {
		if a := s.entities.getAction(h.provider.namespace, h.provider.name, name); a != nil {
			return a, nil
		}
		return nil, notFound()
	}
	if a := s.entities.getAction(namespace, "", name); a != nil {
		return a, nil
	}
	if s.entities.getPackage(namespace, name) != nil {
		return nil, failure(http.StatusConflict, textWrongType)
	}
	return nil, notFound()
}

func (s *Server) findAction(r *request, namespace, pkg, name string) (*actionEntity, *home, error) {
	h, err := s.checkAccess(r, namespace, pkg, name)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.lookUp(h, namespace, name)
	return a, h, err
}

func (s *Server) putAction(r *request, namespace, pkg, name string) (reply, error) {
	overwrite, err := r.boolean("overwrite")
	if err != nil {
		return reply{}, err
	}
	body, release, err := s.readLarge(r)
	if err != nil {
		return reply{}, err
	}
	defer release()
	put, err := parseActionPut(body, &s.cfg)
	if err != nil {
		return reply{}, err
	}
	a, err := s.entities.putAction(namespace, pkg, name, func(old *actionEntity) (*actionEntity, error) {
		return put.apply(old, actionEntity{namespace: namespace, pkg: pkg, name: name}, &s.cfg, overwrite, time.Now())
	})
	if err != nil {
		return reply{}, err
	}
	return done(a.json(true, a.parameters))
}

// readLarge reads a body of any size that a body may have. Few are held at once,
// each for a limited time while it comes; release ends that.
func (s *Server) readLarge(r *request) (body []byte, release func(), err error) {
	release = func() {}
	if r.ContentLength < 0 || r.ContentLength > int64(payloadMax) {
		timer := time.NewTimer(largeWait)
		defer timer.Stop()
		select {
		case s.large <- struct{}{}:
		case <-timer.C:
			return nil, release, failure(http.StatusServiceUnavailable, "Too many large requests are on their way: try again later.")
		case <-r.Context().Done():
			return nil, release, r.Context().Err()
		}
		release = func() { <-s.large }
		if err := r.hurry(); err != nil {
			release()
			return nil, func() {}, err
		}
	}
	if body, err = r.readBody(bodyMax, ""); err != nil {
		release()
		return nil, func() {}, err
	}
	return body, release, nil
}

// hurry bounds how long the body may take to come.
func (r *request) hurry() error {
	size := job.Bytes(r.ContentLength)
	if size < 0 || size > bodyMax {
		size = bodyMax
	}
	due := time.Now().Add(largeGrace + time.Duration(size)*time.Second/time.Duration(largeRate))
	err := r.connection.SetReadDeadline(due)
	if errors.Is(err, http.ErrNotSupported) { // a body that comes through no connection is there already
		return nil
	}
	return err
}

// apply makes the action that a PUT asks for; empty is one with nothing but its
// name.
func (put actionPut) apply(old *actionEntity, empty actionEntity, cfg *Config, overwrite bool, now time.Time) (*actionEntity, error) {
	next := empty
	switch {
	case old != nil && !overwrite:
		return nil, failure(http.StatusConflict, textConflict)
	case old != nil:
		next = *old
		next.version = old.version.next()
		if next.exec.kind != blackbox {
			if _, err := cfg.kind(next.exec.kind); err != nil {
				return nil, err
			}
		}
	case put.exec == nil:
		return nil, failure(http.StatusBadRequest, "exec undefined")
	default:
		next.version = version{0, 0, 1}
		next.limits = actionLimits{
			timeout: cfg.Limits.TimeoutDefault, memory: cfg.Limits.MemoryDefault, logs: cfg.Limits.LogsDefault, concurrency: 1,
		}
	}
	if err := checkLimits(put.limits, cfg); err != nil {
		return nil, err
	}
	next.updated = now
	if put.exec != nil {
		next.exec = *put.exec
	}
	put.limits.onto(&next.limits)
	if put.parameters != nil {
		next.parameters = *put.parameters
	}
	if put.publish != nil {
		next.publish = *put.publish
	}
	if put.version != nil {
		next.version = *put.version
	}
	next.annotations = without(next.annotations, put.delAnnotations)
	if put.annotations != nil {
		next.annotations = merge(next.annotations, *put.annotations)
	}
	if _, there := find(next.annotations, "provide-api-key"); !there && old == nil {
		next.annotations = merge(next.annotations, []pair{{Key: "provide-api-key", Value: []byte("false")}})
	}
	next.annotations = merge(next.annotations, []pair{{Key: "exec", Value: encode(next.exec.kind)}})
	if err := checkPairs("annotations", next.annotations); err != nil {
		return nil, err
	}
	return &next, nil
}

// onto sets the limits that are given.
func (put limitsPut) onto(l *actionLimits) {
	set(&l.timeout, put.timeout)
	set(&l.memory, put.memory)
	set(&l.logs, put.logs)
	set(&l.concurrency, put.concurrency)
}

func set[T time.Duration | job.Bytes | int](field, value *T) {
	if value != nil {
		*field = *value
	}
}
