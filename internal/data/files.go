// SPDX-License-Identifier: Apache-2.0

package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"disdel/internal/data/format"
)

// source is an open file that is read to make a set. It reads no more once the
// context of its call is done.
type source struct {
	io.Reader
	io.ReaderAt
	size int64
}

type readFunc func(b []byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

type readAtFunc func(b []byte, at int64) (int, error)

func (f readAtFunc) ReadAt(b []byte, at int64) (int, error) { return f(b, at) }

// withFile opens a file for read, names it in errors and makes those of its
// format an ErrInvalid.
func withFile(ctx context.Context, path string, read func(f source) error) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a file", ErrInvalid, path)
	}
	f := source{
		size: info.Size(),
		Reader: readFunc(func(b []byte) (int, error) {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			return file.Read(b)
		}),
		ReaderAt: readAtFunc(func(b []byte, at int64) (int, error) {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			return file.ReadAt(b, at)
		}),
	}
	if err := read(f); err != nil {
		return inFile(path, err)
	}
	return nil
}

// inFile says in which file something is wrong.
func inFile(path string, err error) error {
	if errors.Is(err, format.ErrFormat) && !errors.Is(err, ErrInvalid) {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// readIDX reads one file of images or labels.
func readIDX(ctx context.Context, path string) (t format.Tensor, err error) {
	err = withFile(ctx, path, func(f source) error {
		t, err = format.IDX(f, f.size)
		return err
	})
	return t, err
}

// images takes a tensor of images as a split without labels and its shape.
func images(t format.Tensor) (format.Shape, Split, error) {
	shape := format.Shape{C: 1}
	switch len(t.Dims) {
	case 3:
		shape.H, shape.W = t.Dims[1], t.Dims[2]
	case 4:
		shape.H, shape.W, shape.C = t.Dims[1], t.Dims[2], t.Dims[3]
	default:
		return shape, Split{}, fmt.Errorf("%w: %d dimensions %v, want images x rows x columns, or that x channels", ErrInvalid, len(t.Dims), t.Dims)
	}
	return shape, Split{Pixels: t.Data}, nil
}

// idxSplit reads a file of images and one of their labels.
func idxSplit(ctx context.Context, imagesPath, labelsPath string) (format.Shape, Split, error) {
	t, err := readIDX(ctx, imagesPath)
	if err != nil {
		return format.Shape{}, Split{}, err
	}
	shape, split, err := images(t)
	if err != nil {
		return shape, split, inFile(imagesPath, err)
	}
	labels, err := readIDX(ctx, labelsPath)
	if err != nil {
		return shape, split, err
	}
	if len(labels.Dims) != 1 {
		return shape, split, fmt.Errorf("%w: %s: %d dimensions, want one label an image", ErrInvalid, labelsPath, len(labels.Dims))
	}
	if labels.Dims[0] != t.Dims[0] {
		return shape, split, fmt.Errorf("%w: %d images in %s and %d labels in %s", ErrInvalid, t.Dims[0], imagesPath, labels.Dims[0], labelsPath)
	}
	split.Labels = make([]uint16, len(labels.Data))
	for i, label := range labels.Data {
		split.Labels[i] = uint16(label)
	}
	return shape, split, nil
}

// idxSet reads the four files of a set: images and labels to train, images and
// labels to test.
func idxSet(ctx context.Context, paths []string) (shape format.Shape, train, test Split, err error) {
	shape, train, err = idxSplit(ctx, paths[0], paths[1])
	if err != nil {
		return shape, train, test, err
	}
	testShape, test, err := idxSplit(ctx, paths[2], paths[3])
	if err == nil && testShape != shape {
		err = fmt.Errorf("%w: images of %v in %s and of %v in %s", ErrInvalid, shape, paths[0], testShape, paths[2])
	}
	return shape, train, test, err
}

// npzSplit reads an array of images and one of their labels.
func npzSplit(z *format.NPZ, x, y string) (format.Shape, Split, []int64, error) {
	t, err := z.Bytes(x)
	if err != nil {
		return format.Shape{}, Split{}, nil, err
	}
	shape, split, err := images(t)
	if err != nil {
		return shape, split, nil, fmt.Errorf("array %s: %w", x, err)
	}
	labels, dims, err := z.Ints(y)
	if err != nil {
		return shape, split, nil, err
	}
	// A column of labels is what Keras makes of some sets.
	if len(dims) == 2 && dims[1] == 1 {
		dims = dims[:1]
	}
	if len(dims) != 1 || dims[0] != t.Dims[0] {
		return shape, split, nil, fmt.Errorf("%w: array %s has dimensions %v, want one label for each of the %d images in %s", ErrInvalid, y, dims, t.Dims[0], x)
	}
	return shape, split, labels, nil
}

// npz is what a NumPy archive holds. Without a test split in it, testLabels is
// nil.
type npz struct {
	shape                   format.Shape
	train, test             Split
	trainLabels, testLabels []int64
}

// readNPZ reads x_train, y_train, x_test and y_test as Keras names them, or x
// and y.
func readNPZ(f source) (n npz, err error) {
	z, err := format.OpenNPZ(f, f.size)
	if err != nil {
		return n, err
	}
	switch {
	case z.Has("x_train", "y_train", "x_test", "y_test"):
		if n.shape, n.train, n.trainLabels, err = npzSplit(z, "x_train", "y_train"); err != nil {
			return n, err
		}
		var shape format.Shape
		if shape, n.test, n.testLabels, err = npzSplit(z, "x_test", "y_test"); err != nil {
			return n, err
		}
		if shape != n.shape {
			return n, fmt.Errorf("%w: images of %v in x_train and of %v in x_test", ErrInvalid, n.shape, shape)
		}
		return n, nil
	case z.Has("x_train", "y_train"):
		n.shape, n.train, n.trainLabels, err = npzSplit(z, "x_train", "y_train")
		return n, err
	case z.Has("x", "y"):
		n.shape, n.train, n.trainLabels, err = npzSplit(z, "x", "y")
		return n, err
	default:
		return n, fmt.Errorf("%w: arrays %q; want x_train, y_train, x_test and y_test, or x and y", ErrInvalid, z.Names())
	}
}
