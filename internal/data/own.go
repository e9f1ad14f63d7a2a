// SPDX-License-Identifier: Apache-2.0

package data

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"disdel/internal/data/format"
)

// own is a data set of the user's own: a file or a folder.
type own struct {
	path string
	name string
}

// maxOwnName keeps names readable in tables.
const maxOwnName = 48

// ownName makes a name for a data set of the end of its path: in lower case,
// without extension, with dashes for what names do not have. A name that the
// catalogue has gets "own-" before it.
func ownName(ref string) string {
	if abs, err := filepath.Abs(ref); err == nil {
		ref = abs // so that "." has a name
	}
	base := strings.ToLower(filepath.Base(ref))
	for _, ext := range []string{".gz", ".csv", ".npz"} {
		base = strings.TrimSuffix(base, ext)
	}
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '-'
	}, base)
	name = strings.Trim(name[:min(len(name), maxOwnName)], "-")
	if name == "" || slices.Contains(Names(), name) {
		name = strings.TrimSuffix("own-"+name, "-")
	}
	return name
}

func (d own) Info() Info { return Info{Name: d.name, Title: d.path, Source: d.path} }

func (d own) Place(Options) Place { return Place{Path: d.path} }

func (d own) Load(ctx context.Context, o Options) (*Set, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := d.read(ctx, o)
	if err != nil {
		return nil, err
	}
	set, err := c.set(d.Info(), o)
	if err != nil {
		return nil, inFile(d.path, err)
	}
	return set, nil
}

// ownContent is what a user's files hold. Without a test split in them, test is
// empty.
type ownContent struct {
	shape       format.Shape
	train, test Split
	names       []string // of the classes
}

func (d own) read(ctx context.Context, o Options) (ownContent, error) {
	info, err := os.Stat(d.path)
	if err != nil {
		return ownContent{}, err
	}
	lower := strings.ToLower(d.path)
	switch {
	case info.IsDir():
		if paths, ok := idxFolder(d.path); ok {
			return ownIDX(ctx, paths)
		}
		return readFolder(ctx, d.path, o)
	case strings.HasSuffix(lower, ".npz"):
		return ownNPZ(ctx, d.path)
	case strings.HasSuffix(lower, ".csv"), strings.HasSuffix(lower, ".csv.gz"):
		return ownCSV(ctx, d.path, o)
	default:
		return ownContent{}, fmt.Errorf("%w: %s: want a file called .npz, .csv or .csv.gz, a folder with a folder of PNG or JPEG images for each class, or a folder with %s",
			ErrInvalid, d.path, strings.Join(idxNames, ", "))
	}
}

// idxFolder finds the four files of the MNIST family.
func idxFolder(folder string) (paths []string, ok bool) {
	for _, name := range idxNames {
		path, there := fileIn(folder, name)
		if !there {
			return nil, false
		}
		paths = append(paths, path)
	}
	return paths, true
}

func ownIDX(ctx context.Context, paths []string) (c ownContent, err error) {
	if c.shape, c.train, c.test, err = idxSet(ctx, paths); err != nil {
		return c, err
	}
	c.names, err = number(c.train.Labels, c.test.Labels, &c)
	return c, err
}

func ownNPZ(ctx context.Context, path string) (c ownContent, err error) {
	err = withFile(ctx, path, func(f source) error {
		n, err := readNPZ(f)
		if err != nil {
			return err
		}
		c.shape, c.train, c.test = n.shape, n.train, n.test
		c.names, err = number(n.trainLabels, n.testLabels, &c)
		return err
	})
	return c, err
}

func ownCSV(ctx context.Context, path string, o Options) (c ownContent, err error) {
	err = withFile(ctx, path, func(f source) error {
		t, err := format.CSV(f, o.Shape)
		if err != nil {
			return err
		}
		if t.Guessed {
			o.notice("%s: no column is called label, so the first one is taken for it", path)
		}
		c.shape, c.train.Pixels = t.Shape, t.Pixels
		if numbers, ok := wholeNumbers(t.Names); ok {
			c.names, err = number(each(t.Labels, numbers), nil, &c)
		} else {
			c.names, err = number(each(t.Labels, t.Names), nil, &c)
		}
		return err
	})
	return c, err
}

// each takes the value of each label.
func each[T any](labels []uint16, values []T) []T {
	out := make([]T, len(labels))
	for i, l := range labels {
		out[i] = values[l]
	}
	return out
}

// wholeNumbers reads names that are all whole numbers, each written in its one
// form.
func wholeNumbers(names []string) ([]int64, bool) {
	values := make([]int64, len(names))
	for i, name := range names {
		v, err := strconv.ParseInt(name, 10, 64)
		if err != nil || strconv.FormatInt(v, 10) != name {
			return nil, false
		}
		values[i] = v
	}
	return values, true
}

// number makes classes of labels: the different ones in ascending order, so
// that gaps do not count. It sets the content's labels and returns the classes'
// names.
func number[T cmp.Ordered](train, test []T, c *ownContent) ([]string, error) {
	index := map[T]uint16{}
	for _, part := range [][]T{train, test} {
		for _, label := range part {
			index[label] = 0
			if len(index) > format.MaxClasses {
				return nil, fmt.Errorf("%w: more than %d different labels", ErrInvalid, format.MaxClasses)
			}
		}
	}
	var different []T
	for label := range index {
		different = append(different, label)
	}
	slices.Sort(different)
	names := make([]string, len(different))
	for i, label := range different {
		index[label], names[i] = uint16(i), fmt.Sprint(label)
	}
	numbered := func(part []T) []uint16 {
		out := make([]uint16, len(part))
		for i, label := range part {
			out[i] = index[label]
		}
		return out
	}
	c.train.Labels, c.test.Labels = numbered(train), numbered(test)
	return names, nil
}

// set makes a set of the content and tells the user what was decided on the
// way.
func (c ownContent) set(info Info, o Options) (*Set, error) {
	if c.train.Len() == 0 {
		return nil, fmt.Errorf("%w: there are no records to train on", ErrInvalid)
	}
	if c.shape.Bytes() == 0 {
		return nil, fmt.Errorf("%w: images of %v have no pixels", ErrInvalid, c.shape)
	}
	if len(c.names) < 2 {
		return nil, fmt.Errorf("%w: all records are of one class, %q", ErrInvalid, c.names[0])
	}
	c.noticeClasses(info.Name, o)
	if most := slices.Max(c.train.Pixels); most < 128 {
		o.notice("%s: no pixel is above %d; they are taken as 0 to 255", info.Name, most)
	}
	if c.test.Len() == 0 {
		all := c.train.Len()
		c.train, c.test = holdOut(c.train, c.shape.Bytes(), len(c.names))
		if c.test.Len() == 0 {
			return nil, fmt.Errorf("%w: %d records of %d classes leave none to test on", ErrInvalid, all, len(c.names))
		}
		o.notice("%s has no test part: %d of its %d records, about %d %% of each class, become one", info.Name, c.test.Len(), all, holdOutPercent)
	}
	info.H, info.W, info.C = c.shape.H, c.shape.W, c.shape.C
	info.Classes, info.ClassNames, info.Scale = len(c.names), c.names, 1.0/255
	info.Train, info.Test = c.train.Len(), c.test.Len()
	return &Set{Info: info, Train: c.train, Test: c.test}, nil
}

// noticeClasses tells of classes that cannot be learned or tested well.
func (c ownContent) noticeClasses(name string, o Options) {
	counts := make([]int, len(c.names))
	for _, label := range c.train.Labels {
		counts[label]++
	}
	var none, one []string
	for class, n := range counts {
		switch n {
		case 0:
			none = append(none, strconv.Quote(c.names[class]))
		case 1:
			one = append(one, strconv.Quote(c.names[class]))
		}
	}
	if len(none) > 0 {
		o.notice("%s: nothing to train on in class %s", name, few(none))
	}
	if len(one) > 0 && c.test.Len() == 0 {
		o.notice("%s: one record only in class %s; it is trained on and not tested", name, few(one))
	}
}

// few lists the first of many names.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
