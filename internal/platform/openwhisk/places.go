// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"disdel/internal/platform"
)

// A package of a family takes the first free of the family's places, packages
// named FAMILY-1, FAMILY-2 and so on. OpenWhisk gives an action that was deleted
// and is made again the warm containers of the earlier one, if both have the same
// name in the same package: a job in the place of one that has ended finds them.
// Creating a package is atomic, so a place never has two owners; the mark of the
// package says which one it has.

const (
	// placesMax bounds a family. A package that finds no place has its own name.
	placesMax = 64
	// pagesMax bounds the pages of packages that are looked through for a place,
	// listMax is how many packages a page has.
	pagesMax = 20
	listMax  = 200
)

var (
	// errForeign is wrapped by errors about entities that others made.
	errForeign = fmt.Errorf("%w: not disdel's", platform.ErrRefused)
	// errConflict is wrapped by errors about entities that somebody else has just
	// written.
	errConflict = fmt.Errorf("%w: conflict", platform.ErrUnavailable)
)

func placeName(family string, number int) string { return family + "-" + strconv.Itoa(number) }

// claim writes a package under the name that it has here, which it returns.
func (c *Client) claim(ctx context.Context, pkg platform.Package) (place string, created bool, err error) {
	if known := c.place(pkg.Name); known != pkg.Name || pkg.Family == "" {
		created, err = c.putPackage(ctx, known, pkg)
		if known == pkg.Name || !errors.Is(err, errForeign) {
			return known, created, err
		}
		c.leave(pkg.Name) // the deployment has lost it, and given it to another
	}
	for number := 1; number <= placesMax; number++ {
		place = placeName(pkg.Family, number)
		created, err = c.putPackage(ctx, place, pkg)
		if errors.Is(err, errForeign) || errors.Is(err, errConflict) {
			continue
		}
		if err == nil || errors.Is(err, platform.ErrUnavailable) {
			// It has the place, or may have: then it must not take a second one.
			c.mu.Lock()
			c.places[pkg.Name] = place
			c.mu.Unlock()
		}
		return place, created, err
	}
	created, err = c.putPackage(ctx, pkg.Name, pkg)
	return pkg.Name, created, err
}

// place is the name that a package has here, as far as this client knows.
func (c *Client) place(pkg string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if place, ok := c.places[pkg]; ok {
		return place
	}
	return pkg
}

// leave gives a place up.
func (c *Client) leave(pkg string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.places, pkg)
}

// find looks a package up, under its own name and among the places that others
// may have given it. There is none where view is nil. ErrRefused for one that
// disdel did not make.
func (c *Client) find(ctx context.Context, pkg string) (place string, view *packageView, err error) {
	place = c.place(pkg)
	view, err = c.view(ctx, place)
	switch {
	case err != nil:
		return place, nil, err
	case view == nil && place == pkg:
		if place, err = c.seek(ctx, pkg); err != nil || place == "" {
			return place, nil, err
		}
		view, err = c.view(ctx, place)
		if err != nil || view == nil {
			return place, nil, err
		}
	case view == nil:
		return place, nil, nil
	}
	m, ours := marked(view.Annotations)
	switch {
	case !ours:
		return place, nil, fmt.Errorf("%w: package %s was not made by disdel, so disdel does not delete it", platform.ErrRefused, place)
	case place != pkg && m.Owner != pkg:
		return place, nil, nil // somebody else's by now
	}
	return place, view, nil
}

// view gets a package, nil when there is none.
func (c *Client) view(ctx context.Context, name string) (*packageView, error) {
	get := request{method: http.MethodGet, path: c.path("packages", name)}
	a, err := c.do(ctx, get)
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusNotFound && isAPIError(a.body):
		return nil, nil
	case a.status != http.StatusOK:
		return nil, c.failure(get, a)
	}
	var view packageView
	if err := c.decode(get, a, &view); err != nil {
		return nil, err
	}
	return &view, nil
}

// seek returns the place that a package of another client has, "" when it has
// none.
func (c *Client) seek(ctx context.Context, pkg string) (string, error) {
	for page := range pagesMax {
		list := request{
			method: http.MethodGet, path: c.path("packages"), most: recordMax,
			query: url.Values{"limit": {strconv.Itoa(listMax)}, "skip": {strconv.Itoa(page * listMax)}},
		}
		a, err := c.do(ctx, list)
		switch {
		case err != nil:
			return "", err
		case a.status != http.StatusOK:
			return "", c.failure(list, a)
		}
		var rows []struct {
			Name        string     `json:"name"`
			Annotations []keyValue `json:"annotations"`
		}
		if err := c.decode(list, a, &rows); err != nil {
			return "", err
		}
		for _, row := range rows {
			if m, ours := marked(row.Annotations); ours && m.Owner == pkg {
				return row.Name, nil
			}
		}
		if len(rows) < listMax {
			break
		}
	}
	return "", nil
}
