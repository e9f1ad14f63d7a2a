// SPDX-License-Identifier: Apache-2.0

package data

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"disdel/internal/data/format"
)

// ErrUnknown: Find and Open, for what is neither a name in the catalogue nor a
// path of something that is there.
var ErrUnknown = errors.New("data: unknown data set")

// ErrInvalid: Open, when what the source holds is not what it should be.
var ErrInvalid = errors.New("data: invalid data set")

// ErrUnavailable: Open, when a data set of the catalogue is not on this machine
// and cannot be downloaded.
var ErrUnavailable = errors.New("data: data set not available")

// Info is what is known of a data set: of those in the catalogue without loading
// them, of users' own only the name and the title.
type Info struct {
	Name        string // a-z, 0-9, - and _; unique in the catalogue
	Title       string
	Source      string // URL that people can read
	Licence     string // SPDX identifier, or empty when none is declared
	Attribution string // what the licence asks to be said

	H, W, C    int // shape of an image: rows, columns, channels
	Classes    int
	ClassNames []string // one for each class
	Train      int      // records of the training split
	Test       int      // records of the test split

	// Scale is what a pixel is multiplied with to lie in 0 .. 1.
	Scale float32
}

// RecordBytes is the size of one image.
func (i Info) RecordBytes() int { return i.H * i.W * i.C }

// Split is a part of a data set: Pixels holds the images one after the other,
// rows top down, channels interleaved.
type Split struct {
	Pixels []byte
	Labels []uint16
}

// Len is the number of records.
func (s Split) Len() int { return len(s.Labels) }

// Set is a loaded data set. Nobody changes it.
type Set struct {
	Info        Info
	Train, Test Split

	// digest is that of Open, so that it is computed once.
	digest string
}

// Options say where data sets are looked for. The zero value knows those inside
// the program and paths.
type Options struct {
	// DataDir is a folder of the user's, with data sets in it or in a folder of
	// their name; "" is none. It is looked at first.
	DataDir string
	// CacheDir is where downloads are kept, in a folder for each data set; without
	// it nothing is downloaded.
	CacheDir string
	// KerasDir is where Keras keeps its files, usually ~/.keras; "" is nowhere.
	KerasDir string
	// SystemDir is where the system's packages put data, usually /usr/share; "" is
	// nowhere.
	SystemDir string
	// Offline forbids downloads.
	Offline bool
	// Shape of the images of a CSV file; nil leaves it to the file.
	Shape *format.Shape

	// Notice is told what the user should know though it is no error. Default:
	// nobody is.
	Notice func(text string)
	// Progress is told how much of a download is here. Default: nobody is.
	Progress func(file string, done, total int64)
	// HTTP makes the requests of downloads. Default: one with limits of time and
	// the proxy of the environment.
	HTTP *http.Client
}

func (o Options) notice(format string, args ...any) {
	if o.Notice != nil {
		o.Notice(fmt.Sprintf(format, args...))
	}
}

// Place says where a data set is.
type Place struct {
	// BuiltIn: inside the program.
	BuiltIn bool
	// Path is the folder or file where it was found.
	Path string
	// Download is how many bytes loading would download, where it was not found.
	Download int64
}

// Dataset is a data set that can be loaded.
type Dataset interface {
	// Info is cheap and always the same. The caller does not change its slices.
	Info() Info
	// Place looks for the data set, reading no more than lists of files.
	Place(o Options) Place
	// Load reads the data set, downloading it if need be. Safe for concurrent
	// use; each call makes a set of its own. It stops with the context's error
	// once ctx is done. Callers use the function Open of this package, which also
	// checks the set.
	Load(ctx context.Context, o Options) (*Set, error)
}

// catalogue lists every data set, in the order in which people see them.
func catalogue() []Dataset {
	all := []Dataset{digits{}}
	for _, p := range publications() {
		all = append(all, p)
	}
	return all
}

// Names lists the data sets of the catalogue.
func Names() []string {
	var names []string
	for _, d := range catalogue() {
		names = append(names, d.Info().Name)
	}
	return names
}

// Find returns what a reference means: the data set of that name in the
// catalogue, else the user's own at that path, else ErrUnknown. A folder that is
// called like a data set of the catalogue is meant with "./" before it.
func Find(ref string) (Dataset, error) {
	for _, d := range catalogue() {
		if d.Info().Name == ref {
			return d, nil
		}
	}
	_, err := os.Stat(ref)
	switch {
	case ref != "" && err == nil:
		return own{path: ref, name: ownName(ref)}, nil
	case looksLikePath(ref):
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	default:
		return nil, fmt.Errorf("%w %q; there is: %s; or give the path of your own: a .npz or .csv file, or a folder of images",
			ErrUnknown, ref, strings.Join(Names(), ", "))
	}
}

func looksLikePath(ref string) bool {
	return strings.ContainsRune(ref, filepath.Separator) || strings.ContainsRune(ref, '.')
}

// Open finds, loads and checks the data set that a reference means: a name in
// the catalogue or a path.
func Open(ctx context.Context, ref string, o Options) (*Set, error) {
	d, err := Find(ref)
	if err != nil {
		return nil, err
	}
	set, err := d.Load(ctx, o)
	if err == nil {
		err = set.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("load data set %s: %w", d.Info().Name, err)
	}
	set.digest = set.Digest()
	return set, nil
}
