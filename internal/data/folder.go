// SPDX-License-Identifier: Apache-2.0

package data

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"disdel/internal/data/format"
)

// maxImageFile bounds one image file.
const maxImageFile = 64 << 20

// testFolders are what people call the folder beside "train", best first.
var testFolders = []string{"test", "val", "valid", "validation"}

const trainFolder = "train"

// readFolder reads a folder that has a folder of images for each class, or has
// folders train and test with such folders in them. Classes are in alphabetical
// order of their folders, records in that of their files.
func readFolder(ctx context.Context, root string, o Options) (c ownContent, err error) {
	folders, err := subfolders(root)
	if err != nil {
		return c, err
	}
	trainRoot, testRoot := root, ""
	isSplit := slices.Contains(folders, trainFolder) && !slices.ContainsFunc(folders, func(name string) bool {
		return name != trainFolder && !slices.Contains(testFolders, name)
	})
	if isSplit {
		trainRoot = filepath.Join(root, trainFolder)
		for _, name := range testFolders {
			if !slices.Contains(folders, name) {
				continue
			}
			if testRoot == "" {
				testRoot = filepath.Join(root, name)
			} else {
				o.notice("%s is passed over: %s is the test part", filepath.Join(root, name), testRoot)
			}
		}
		if folders, err = subfolders(trainRoot); err != nil {
			return c, err
		}
	}
	if len(folders) == 0 {
		return c, fmt.Errorf("%w: %s has no folders in it; want one for each class, with its images", ErrInvalid, trainRoot)
	}
	c.names = folders
	r := folderReader{names: folders}
	if c.train, err = r.split(ctx, trainRoot); err != nil {
		return c, err
	}
	if testRoot != "" {
		tested, err := subfolders(testRoot)
		if err != nil {
			return c, err
		}
		for _, name := range tested {
			if !slices.Contains(folders, name) {
				return c, fmt.Errorf("%w: %s has the class %q, which %s does not have", ErrInvalid, testRoot, name, trainRoot)
			}
		}
		if c.test, err = r.split(ctx, testRoot); err != nil {
			return c, err
		}
		if c.test.Len() == 0 {
			return c, fmt.Errorf("%w: there are no images in %s", ErrInvalid, testRoot)
		}
	}
	if r.otherCount > 0 {
		o.notice("%s: %d files that are not called .png, .jpg or .jpeg are passed over, the first is %s", root, r.otherCount, r.other)
	}
	c.shape = r.shape
	return c, nil
}

// subfolders lists the folders in one, without hidden ones.
func subfolders(root string) ([]string, error) {
	entries, err := os.ReadDir(root) // in alphabetical order
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if hidden(e) {
			continue
		}
		// A link to a folder is one.
		info, err := os.Stat(filepath.Join(root, e.Name()))
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func hidden(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }

// folderReader collects images, all of the shape of the first.
type folderReader struct {
	names []string
	shape format.Shape
	first string // the file that gave the shape

	other      string // the first file that is passed over
	otherCount int
}

// split reads the classes below a folder. One that is not there has no records.
func (r *folderReader) split(ctx context.Context, root string) (s Split, err error) {
	for class, name := range r.names {
		folder := filepath.Join(root, name)
		entries, err := os.ReadDir(folder)
		if os.IsNotExist(err) && r.first != "" {
			continue
		}
		if err != nil {
			return s, err
		}
		for _, e := range entries {
			if hidden(e) {
				continue
			}
			path := filepath.Join(folder, e.Name())
			switch ext := strings.ToLower(filepath.Ext(path)); {
			case e.IsDir():
				return s, fmt.Errorf("%w: %s is a folder within a class; put its images into %s itself", ErrInvalid, path, folder)
			case ext == ".png", ext == ".jpg", ext == ".jpeg":
				if s.Pixels, err = r.image(ctx, path, s.Pixels); err != nil {
					return s, err
				}
				s.Labels = append(s.Labels, uint16(class))
			default:
				if r.otherCount++; r.otherCount == 1 {
					r.other = path
				}
			}
		}
	}
	return s, nil
}

// image appends the pixels of a file.
func (r *folderReader) image(ctx context.Context, path string, pixels []byte) ([]byte, error) {
	err := withFile(ctx, path, func(f source) error {
		if f.size > maxImageFile {
			return fmt.Errorf("%w: an image file of %d bytes, at most %d are read", ErrInvalid, f.size, maxImageFile)
		}
		file, err := io.ReadAll(io.LimitReader(f, maxImageFile))
		if err != nil {
			return err
		}
		shape, image, err := format.Image(file)
		if err != nil {
			return err
		}
		if r.first == "" {
			r.first, r.shape = path, shape
		}
		if shape != r.shape {
			return r.differs(shape)
		}
		if int64(len(pixels)) > format.MaxBytes-int64(len(image)) {
			return fmt.Errorf("%w: the images are more than %d bytes together", ErrInvalid, int64(format.MaxBytes))
		}
		pixels = append(pixels, image...)
		return nil
	})
	return pixels, err
}

func (r *folderReader) differs(shape format.Shape) error {
	if shape.C != r.shape.C {
		colour := map[int]string{1: "grey", 3: "in colour"}
		return fmt.Errorf("%w: it is %s and %s is %s; convert all to one of them, for example with ImageMagick: mogrify -colorspace Gray (or -type TrueColor) FILES",
			ErrInvalid, colour[shape.C], r.first, colour[r.shape.C])
	}
	return fmt.Errorf("%w: it has %d x %d pixels and %s has %d x %d; bring all to one size, for example with ImageMagick: mogrify -resize '%dx%d!' FILES",
		ErrInvalid, shape.W, shape.H, r.first, r.shape.W, r.shape.H, r.shape.W, r.shape.H)
}
