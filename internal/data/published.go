// SPDX-License-Identifier: Apache-2.0

package data

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"disdel/internal/data/fetch"
	"disdel/internal/data/format"
)

// published is a data set that others publish as files.
type published struct {
	info Info
	// digest is Set.Digest of the published files; "" where it is not known.
	digest string
	// files are what is downloaded. Together they are one of the layouts.
	files []fetch.File
	// layouts are the forms in which the set may lie in a folder, best first.
	layouts []layout
	// torchvision, keras and system are folders in which others leave it, below
	// the user's, Keras's and the system's.
	torchvision, keras, system string
	// unread are files of others that hold the set in a form that is not read,
	// and why.
	unread map[string]string
}

// layout is a form in which a set may lie in a folder.
type layout struct {
	// files are all needed; one that ends in .gz may lie there without it too.
	files []string
	read  func(ctx context.Context, paths []string, classes int) (content, error)
}

// content is what a layout's files hold.
type content struct {
	shape       format.Shape
	train, test Split
	// sha256 of the one file that was read, where reading computes it.
	sha256 string
}

func (p published) Info() Info { return p.info }

// folders lists where the set may be, in the order in which it is looked for.
func (p published) folders(o Options) []string {
	var all []string
	add := func(base string, below ...string) {
		if base != "" {
			all = append(all, filepath.Join(append([]string{base}, below...)...))
		}
	}
	add(o.DataDir, p.info.Name)
	add(o.DataDir)
	if p.torchvision != "" {
		add(o.DataDir, p.torchvision)
	}
	add(o.CacheDir, p.info.Name)
	if p.keras != "" {
		add(o.KerasDir, p.keras)
	}
	if p.system != "" {
		add(o.SystemDir, p.system)
	}
	return all
}

// find looks for the set in a folder and returns the layout and the paths of
// its files; ok is false where it is not there. Remark says why not, where
// something of it is.
func (p published) find(folder string) (l layout, paths []string, remark string, ok bool) {
	for _, l := range p.layouts {
		var paths, missing []string
		for _, name := range l.files {
			if path, there := fileIn(folder, name); there {
				paths = append(paths, path)
			} else {
				missing = append(missing, name)
			}
		}
		if len(missing) == 0 {
			return l, paths, "", true
		}
		if len(paths) > 0 {
			remark = fmt.Sprintf("%s has a part of %s only: %s is not there", folder, p.info.Name, strings.Join(missing, ", "))
		}
	}
	for name, why := range p.unread {
		if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
			remark = fmt.Sprintf("%s is passed over: %s", filepath.Join(folder, name), why)
		}
	}
	return layout{}, nil, remark, false
}

// fileIn finds a file in a folder, with .gz or without.
func fileIn(folder, name string) (path string, ok bool) {
	path = filepath.Join(folder, name)
	for _, path := range []string{strings.TrimSuffix(path, ".gz"), path} {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

func (p published) Place(o Options) Place {
	for _, folder := range p.folders(o) {
		if _, paths, _, ok := p.find(folder); ok {
			if len(paths) == 1 {
				return Place{Path: paths[0]}
			}
			return Place{Path: filepath.Dir(paths[0])}
		}
	}
	return Place{Download: p.downloadBytes(o)}
}

// downloadBytes is the size of the files that are not in the cache.
func (p published) downloadBytes(o Options) (n int64) {
	for _, f := range p.files {
		if _, there := fileIn(filepath.Join(o.CacheDir, p.info.Name), f.Name); !there || o.CacheDir == "" {
			n += f.Bytes
		}
	}
	return n
}

func (p published) Load(ctx context.Context, o Options) (*Set, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	folders := p.folders(o)
	for _, folder := range folders {
		l, paths, remark, ok := p.find(folder)
		if ok {
			return p.read(ctx, o, l, paths)
		}
		if remark != "" {
			o.notice("%s", remark)
		}
	}
	if o.Offline || o.CacheDir == "" {
		return nil, p.unavailable(o, fmt.Errorf("not in %s, and nothing is downloaded", orNone(folders)))
	}
	folder := filepath.Join(o.CacheDir, p.info.Name)
	if err := p.download(ctx, o, folder); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, p.unavailable(o, err)
	}
	l, paths, _, ok := p.find(folder)
	if !ok {
		return nil, fmt.Errorf("%w: %s has gone from %s", ErrUnavailable, p.info.Name, folder)
	}
	return p.read(ctx, o, l, paths)
}

func orNone(folders []string) string {
	if len(folders) == 0 {
		return "any folder, because none is given"
	}
	return strings.Join(folders, ", ")
}

// unavailable says what the user can do.
func (p published) unavailable(o Options, cause error) error {
	var names []string
	for _, f := range p.files {
		names = append(names, f.Name)
	}
	folder := o.DataDir
	if folder == "" {
		folder = "DIR"
	}
	return fmt.Errorf("%w: %w; get %s from %s yourself into %s and give --data-dir %s",
		ErrUnavailable, cause, strings.Join(names, ", "), p.info.Source, filepath.Join(folder, p.info.Name), folder)
}

// download brings the files that are not there into a folder.
func (p published) download(ctx context.Context, o Options, folder string) error {
	f := fetch.Fetcher{Client: o.HTTP}
	if o.Progress != nil {
		f.Progress = func(file fetch.File, done int64) { o.Progress(file.Name, done, file.Bytes) }
	}
	for _, file := range p.files {
		if _, there := fileIn(folder, file.Name); there {
			continue
		}
		if err := f.Fetch(ctx, file, filepath.Join(folder, file.Name)); err != nil {
			return err
		}
	}
	return nil
}

// read makes a set of files and says so if they are not the published ones.
func (p published) read(ctx context.Context, o Options, l layout, paths []string) (*Set, error) {
	c, err := l.read(ctx, paths, p.info.Classes)
	if errors.Is(err, ErrInvalid) {
		return nil, fmt.Errorf("%w; remove the damaged file, then it is taken from elsewhere or downloaded", err)
	}
	if err != nil {
		return nil, err
	}
	set := &Set{Info: p.info, Train: c.train, Test: c.test}
	set.Info.H, set.Info.W, set.Info.C = c.shape.H, c.shape.W, c.shape.C
	set.Info.Train, set.Info.Test = c.train.Len(), c.test.Len()
	if err := set.Validate(); err != nil {
		return nil, fmt.Errorf("%w; remove what is damaged in %s, then it is taken from elsewhere or downloaded", inFile(paths[0], err), filepath.Dir(paths[0]))
	}
	if !p.isPublished(set, c.sha256) {
		o.notice("%s is used from %s, which is not the published version: %s", p.info.Name, filepath.Dir(paths[0]), p.difference(set))
	}
	return set, nil
}

func (p published) difference(set *Set) string {
	size := func(i Info) string {
		return fmt.Sprintf("%d and %d records of %v", i.Train, i.Test, format.Shape{H: i.H, W: i.W, C: i.C})
	}
	if is, published := size(set.Info), size(p.info); is != published {
		return is + " instead of " + published
	}
	return "other contents, or another order of them"
}

// isPublished compares contents with what is known of the published ones. Where
// nothing is, only the numbers can tell.
func (p published) isPublished(set *Set, sha256 string) bool {
	switch {
	case p.digest != "":
		set.digest = set.Digest()
		return set.digest == p.digest
	case sha256 != "" && sha256 != p.files[0].SHA256:
		return false
	default:
		return set.Info.Train == p.info.Train && set.Info.Test == p.info.Test && set.Info.RecordBytes() == p.info.RecordBytes()
	}
}

// readIDXLayout reads the four files of the MNIST family.
func readIDXLayout(ctx context.Context, paths []string, _ int) (c content, err error) {
	c.shape, c.train, c.test, err = idxSet(ctx, paths)
	return c, err
}

// readNPZLayout reads what Keras keeps.
func readNPZLayout(ctx context.Context, paths []string, classes int) (c content, err error) {
	err = withFile(ctx, paths[0], func(f source) error {
		n, err := readNPZ(f)
		if err != nil {
			return err
		}
		if n.testLabels == nil {
			return fmt.Errorf("%w: no x_test and y_test", ErrInvalid)
		}
		c.shape, c.train, c.test = n.shape, n.train, n.test
		if c.train.Labels, err = classLabels(n.trainLabels, classes); err != nil {
			return err
		}
		c.test.Labels, err = classLabels(n.testLabels, classes)
		return err
	})
	return c, err
}

// classLabels takes labels that are numbers of classes.
func classLabels(values []int64, classes int) ([]uint16, error) {
	labels := make([]uint16, len(values))
	for i, v := range values {
		if v < 0 || v >= int64(classes) {
			return nil, fmt.Errorf("%w: label %d of record %d, want 0 to %d", ErrInvalid, v, i, classes-1)
		}
		labels[i] = uint16(v)
	}
	return labels, nil
}

// alphaDigits reads binaryalphadigs.mat: a cell array of images, a row for each
// class, and the classes' names. It has no test split: one is held out.
func alphaDigits(ctx context.Context, paths []string, classes int) (c content, err error) {
	var values []format.MatValue
	err = withFile(ctx, paths[0], func(f source) error {
		values, err = format.MAT(f, f.size)
		return err
	})
	if err != nil {
		return c, err
	}
	all, shape, err := alphaRecords(values, classes)
	if err != nil {
		return c, inFile(paths[0], err)
	}
	c.shape = shape
	c.train, c.test = holdOut(all, shape.Bytes(), classes)
	return c, nil
}

// alphaRecords takes the images class by class, each turned from columns to
// rows.
func alphaRecords(values []format.MatValue, classes int) (all Split, shape format.Shape, err error) {
	var dat *format.MatValue
	for i := range values {
		if values[i].Name == "dat" {
			dat = &values[i]
		}
	}
	if dat == nil {
		return all, shape, fmt.Errorf("%w: no variable called dat", ErrInvalid)
	}
	if len(dat.Dims) != 2 || dat.Dims[0] != classes || len(dat.Cells) != dat.Dims[0]*dat.Dims[1] || len(dat.Cells) == 0 {
		return all, shape, fmt.Errorf("%w: dat is %v with %d cells, want cells of %d classes x examples", ErrInvalid, dat.Dims, len(dat.Cells), classes)
	}
	first := dat.Cells[0].Dims
	for class := range classes {
		for example := range dat.Dims[1] {
			cell := dat.Cells[class+example*classes]
			if len(cell.Dims) != 2 || cell.Dims[0] != first[0] || cell.Dims[1] != first[1] || len(cell.Bytes) == 0 {
				return all, shape, fmt.Errorf("%w: cell %d, %d of dat has %d uint8 values in %v, want a matrix of %v as the first one", ErrInvalid, class+1, example+1, len(cell.Bytes), cell.Dims, first)
			}
			shape = format.Shape{H: first[0], W: first[1], C: 1}
			for y := range shape.H {
				for x := range shape.W {
					v := cell.Bytes[y+x*shape.H]
					if v > 1 {
						return all, shape, fmt.Errorf("%w: cell %d, %d of dat has the value %d, want 0 or 1", ErrInvalid, class+1, example+1, v)
					}
					all.Pixels = append(all.Pixels, v)
				}
			}
			all.Labels = append(all.Labels, uint16(class))
		}
	}
	return all, shape, nil
}
