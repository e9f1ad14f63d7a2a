// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"net/http"
	"time"
)

// servePackages serves what is below /namespaces/{namespace}/packages.
func (s *Server) servePackages(r *request, namespace string, path []string) (reply, error) {
	if len(path) == 0 || len(path) == 1 && path[0] == "" {
		if r.Method != http.MethodGet {
			return reply{}, noRoute()
		}
		return s.listPackages(r, namespace)
	}
	if len(path) != 1 {
		return reply{}, noRoute()
	}
	name := path[0]
	own := namespace == r.user.Namespace
	switch r.Method {
	case http.MethodGet:
		return s.getPackage(r, namespace, name)
	case http.MethodPut:
		if !own {
			return reply{}, forbidden(namespace + "/" + name)
		}
		return s.putPackage(r, namespace, name)
	case http.MethodDelete:
		if !own {
			return reply{}, forbidden(namespace + "/" + name)
		}
		force, err := r.boolean("force")
		if err != nil {
			return reply{}, err
		}
		p, err := s.entities.deletePackage(namespace, name, force)
		if err != nil {
			return reply{}, err
		}
		return done(p.json(p.parameters))
	default:
		return reply{}, noRoute()
	}
}

func (s *Server) listPackages(r *request, namespace string) (reply, error) {
	limit, skip, err := r.page("packages")
	if err != nil {
		return reply{}, err
	}
	count, err := r.boolean("count")
	if err != nil {
		return reply{}, err
	}
	list := s.entities.listPackages(func(p *packageEntity) bool {
		return p.namespace == namespace && (p.publish || namespace == r.user.Namespace)
	})
	if count {
		return done(map[string]int{"packages": max(0, len(list)-skip)})
	}
	rows := []map[string]any{}
	for _, p := range cut(list, skip, limit) {
		rows = append(rows, p.row())
	}
	return done(rows)
}

func (p *packageEntity) row() map[string]any {
	row := map[string]any{
		"namespace": p.namespace, "name": p.name, "version": p.version.String(), "publish": p.publish,
		"annotations": orEmpty(p.annotations), "updated": p.updated.UnixMilli(), "binding": false,
	}
	if p.binding != nil {
		row["binding"] = p.binding
	}
	return row
}

func (p *packageEntity) json(parameters []pair) map[string]any {
	out := p.row()
	out["parameters"] = orEmpty(parameters)
	if p.binding == nil {
		out["binding"] = map[string]string{}
	}
	return out
}

// home is where a package's actions are: itself, or what it is bound to.
type home struct {
	named    *packageEntity
	provider *packageEntity
}

// parameters are what actions inherit.
func (h home) parameters() []pair {
	if h.named == h.provider {
		return h.named.parameters
	}
	return merge(h.provider.parameters, h.named.parameters)
}

// findPackage finds a package that the user may read, and what it is bound to.
func (s *Server) findPackage(r *request, namespace, name string) (h home, err error) {
	own := namespace == r.user.Namespace
	h.named = s.entities.getPackage(namespace, name)
	switch {
	case h.named == nil && own && s.entities.getAction(namespace, "", name) != nil:
		return h, failure(http.StatusConflict, textWrongType)
	case h.named == nil && own:
		return h, notFound()
	case h.named == nil || !own && !h.named.publish:
		return h, forbidden(namespace + "/" + name)
	}
	h.provider = h.named
	if b := h.named.binding; b != nil {
		h.provider = s.entities.getPackage(b.Namespace, b.Name)
		switch {
		case h.provider == nil && b.Namespace == r.user.Namespace:
			return h, notFound()
		case h.provider == nil || b.Namespace != r.user.Namespace && !h.provider.publish:
			return h, forbidden(b.Namespace + "/" + b.Name)
		}
	}
	return h, nil
}

func (s *Server) getPackage(r *request, namespace, name string) (reply, error) {
	if namespace == r.user.Namespace && s.entities.getPackage(namespace, name) == nil && s.entities.getAction(namespace, "", name) == nil {
		return reply{}, failure(http.StatusNotFound, "The requested resource '%s/%s' does not exist.", namespace, name)
	}
	h, err := s.findPackage(r, namespace, name)
	if err != nil {
		return reply{}, err
	}
	out := h.named.json(h.parameters())
	actions, feeds := []map[string]any{}, []map[string]any{}
	for _, a := range s.entities.listActions(func(a *actionEntity) bool {
		return a.namespace == h.provider.namespace && a.pkg == h.provider.name
	}) {
		row := map[string]any{"name": a.name, "version": a.version.String(), "annotations": orEmpty(a.annotations)}
		if _, feed := find(a.annotations, "feed"); feed {
			feeds = append(feeds, row)
		} else {
			actions = append(actions, row)
		}
	}
	out["actions"], out["feeds"] = actions, feeds
	return done(out)
}

func (s *Server) putPackage(r *request, namespace, name string) (reply, error) {
	overwrite, err := r.boolean("overwrite")
	if err != nil {
		return reply{}, err
	}
	if name == "default" {
		return reply{}, failure(http.StatusBadRequest, "Package name 'default' is reserved.")
	}
	body, release, err := s.readLarge(r)
	if err != nil {
		return reply{}, err
	}
	defer release()
	put, err := parsePackagePut(body)
	if err != nil {
		return reply{}, err
	}
	if err := s.checkBinding(r, put.binding); err != nil {
		return reply{}, err
	}
	p, err := s.entities.putPackage(namespace, name, func(old *packageEntity) (*packageEntity, error) {
		return put.apply(old, namespace, name, overwrite, time.Now())
	})
	if err != nil {
		return reply{}, err
	}
	return done(p.json(p.parameters))
}

// checkBinding refuses to bind to what is no package that the user may read.
func (s *Server) checkBinding(r *request, b *binding) error {
	if b == nil {
		return nil
	}
	if b.Namespace == "_" {
		b.Namespace = r.user.Namespace
	}
	own := b.Namespace == r.user.Namespace
	provider := s.entities.getPackage(b.Namespace, b.Name)
	switch {
	case provider == nil && own && s.entities.getAction(b.Namespace, "", b.Name) != nil:
		return failure(http.StatusConflict, "Cannot bind to a resource that is not a package.")
	case provider == nil && own:
		return failure(http.StatusBadRequest, "Binding references a package that does not exist.")
	case provider == nil || !own && !provider.publish:
		return forbidden(b.Namespace + "/" + b.Name)
	case provider.binding != nil:
		return failure(http.StatusBadRequest, "Cannot bind to another package binding.")
	}
	return nil
}

// apply makes the package that a PUT asks for.
func (put packagePut) apply(old *packageEntity, namespace, name string, overwrite bool, now time.Time) (*packageEntity, error) {
	next := packageEntity{namespace: namespace, name: name, version: version{0, 0, 1}}
	switch {
	case old != nil && !overwrite:
		return nil, failure(http.StatusConflict, textConflict)
	case old != nil && old.binding == nil && put.binding != nil:
		return nil, failure(http.StatusConflict, "Resource is a package and cannot be converted into a binding.")
	case old != nil:
		next = *old
		next.version = old.version.next()
	}
	next.updated = now
	if put.binding != nil {
		next.binding = put.binding
	} else if put.unbound {
		next.binding = nil
	}
	if put.parameters != nil {
		next.parameters = *put.parameters
	}
	if put.annotations != nil {
		next.annotations = *put.annotations
	}
	if put.publish != nil {
		next.publish = *put.publish
	}
	if put.version != nil {
		next.version = *put.version
	}
	next.annotations = without(next.annotations, []string{"binding"})
	if next.binding != nil {
		next.annotations = merge(next.annotations, []pair{{Key: "binding", Value: encode(next.binding)}})
	}
	if err := checkPairs("annotations", next.annotations); err != nil {
		return nil, err
	}
	return &next, nil
}
