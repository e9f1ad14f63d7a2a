// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/data"
	"disdel/internal/data/format"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
)

const (
	// predictBatch is how many images are run at once, if they fit into
	// predictBytes together; else one.
	predictBatch = 64
	predictBytes = 512 << 20
	// maxPredicted bounds one image file.
	maxPredicted = 64 << 20
)

func (a *app) predictCommand() *cobra.Command {
	o := &options{}
	top := 1
	cmd := &cobra.Command{
		Use:   "predict MODEL FILE...",
		Short: "Run a model over images of your own, in this process",
		Long: `Predict prints the class of each image and how probable the model takes it to
be. It uses no containers and keeps a few images in memory at a time.

MODEL is the name of a data set, which stands for the newest model that was trained
on it; or the start of a model's digest, as "disdel models" lists them; or a
.safetensors file, as "disdel models export" writes them.

A FILE is a PNG or JPEG image; or a .npz file with an array x_test or x of images
(uint8, N x H x W or N x H x W x C); or a .csv or .csv.gz file with the pixels of an
image in each line, as for training, or without the label. Images have the size that
the model was trained on: they are not resized. A file that cannot be used does not
keep the others from being looked at; the exit code is then 1.`,
		Example: `  disdel predict digits scan.png
  disdel predict 3f2a9c *.png --top 3
  disdel predict model.safetensors images.npz --json`,
		ValidArgsFunction: a.completeStored(o),
		Args: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return fmt.Errorf("%s: want a model and files with images, none is given; see: %s", commandName(cmd), o.next("models"))
			case 1:
				return fmt.Errorf("%s: want files with images after the model %q, none is given", commandName(cmd), args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.predict(cmd.Context(), o, args[0], args[1:], top)
		},
	}
	cmd.Flags().Var(countValue{&top}, "top", "how many classes to print of each image, the most probable first")
	o.storeFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	return cmd
}

func (a *app) predict(ctx context.Context, o *options, ref string, paths []string, top int) (err error) {
	m, err := a.openModel(ctx, o, ref)
	if err != nil {
		return err
	}
	p, err := newPredictor(m, top)
	if err = errors.Join(err, m.close()); err != nil {
		return fmt.Errorf("model %s: %w", ref, err)
	}
	defer func() { err = errors.Join(err, p.arena.Close()) }()
	p.out = newPredictionText(a.stdout, a.stderr, m, paths)
	if o.json {
		p.out = &predictionJSON{w: a.stdout, model: m}
	}
	if err := p.out.begin(); err != nil {
		return err
	}
	failed := 0
	for _, path := range paths {
		err := p.file(ctx, path)
		if err == nil {
			continue
		}
		var output outputError
		if errors.As(err, &output) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(p.flush(), p.out.end(), err)
		}
		failed++
		if err := errors.Join(p.flush(), p.out.problem(path, err)); err != nil {
			return err
		}
	}
	if err := errors.Join(p.flush(), p.out.end()); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("predict: %d of %d files could not be used", failed, len(paths))
	}
	return nil
}

// outputError is one of printing, not of a file.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

// predictor runs a model over images, a batch at a time.
type predictor struct {
	shape    format.Shape
	scale    float32
	top      int
	instance *nn.Instance
	arena    *nn.Arena
	out      predictionWriter

	images  []byte // of the batch so far
	origins []origin
	order   []int // of classes, for sorting
}

// origin says where an image is from: index counts the images of a file that has
// many, and is -1 in one that is an image itself.
type origin struct {
	path  string
	index int
}

func (o origin) String() string {
	if o.index < 0 {
		return o.path
	}
	return fmt.Sprintf("%s[%d]", o.path, o.index)
}

// guess is a class and the probability that a model gives it.
type guess struct {
	class       int
	probability float64
}

// predictionWriter prints predictions in the order of the images.
type predictionWriter interface {
	begin() error
	prediction(from origin, best []guess) error
	problem(path string, cause error) error
	end() error
}

// newPredictor reads the model's weights. Its arena is to be closed.
func newPredictor(m openedModel, top int) (_ *predictor, err error) {
	in := m.Spec.Input
	batch := predictBatch
	program, err := nn.Compile(m.Spec, nn.Config{Batch: batch})
	if err == nil && program.Sizes().Total > predictBytes {
		batch = 1
		program, err = nn.Compile(m.Spec, nn.Config{Batch: batch})
	}
	if err != nil {
		return nil, err
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		return nil, err
	}
	instance, err := program.Bind(arena.Bytes(), kernel.Best())
	if err == nil {
		err = m.ReadWeights(instance.Weights())
	}
	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}
	p := &predictor{
		shape: format.Shape{H: in.H, W: in.W, C: in.C}, scale: m.dataset.Scale, top: min(top, m.Spec.Classes),
		instance: instance, arena: arena, images: make([]byte, 0, batch*in.Elements()), origins: make([]origin, 0, batch),
		order: make([]int, m.Spec.Classes),
	}
	return p, nil
}

// file looks at the images of a file.
func (p *predictor) file(ctx context.Context, path string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s: it is a folder; give the files in it", path)
	}
	count := 0
	each := func(image []byte) error {
		count++
		return errors.Join(ctx.Err(), p.add(origin{path, count - 1}, image))
	}
	lower := strings.ToLower(path)
	switch {
	case strings.HasSuffix(lower, arraysExtension):
		err = p.arrays(file, info.Size(), each)
	case strings.HasSuffix(lower, ".csv"), strings.HasSuffix(lower, ".csv.gz"):
		err = format.CSVRecords(file, p.shape, each)
	case slices.Contains([]string{".png", ".jpg", ".jpeg"}, filepath.Ext(lower)):
		err = p.picture(ctx, file, path)
	default:
		err = fmt.Errorf("want a file called .png, .jpg, .jpeg, .npz, .csv or .csv.gz")
	}
	var output outputError
	if err != nil && !errors.As(err, &output) {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return err
}

func (p *predictor) picture(ctx context.Context, file io.Reader, path string) error {
	raw, err := io.ReadAll(io.LimitReader(file, maxPredicted+1))
	if err != nil {
		return err
	}
	if len(raw) > maxPredicted {
		return fmt.Errorf("%w: an image file of more than %d bytes", data.ErrInvalid, maxPredicted)
	}
	shape, pixels, err := format.Image(raw)
	if err != nil {
		return err
	}
	switch want := p.shape; {
	case shape.H != want.H || shape.W != want.W:
		return fmt.Errorf("the image has %d x %d pixels, the model takes %d x %d; bring it to that size, for example with ImageMagick: mogrify -resize '%dx%d!' FILE",
			shape.W, shape.H, want.W, want.H, want.W, want.H)
	case shape.C != want.C && want.C == 1:
		return errors.New("the image is in colour, the model takes grey ones; convert it, for example with ImageMagick: mogrify -colorspace Gray FILE")
	case shape.C != want.C:
		return fmt.Errorf("the image is grey, the model takes %d channels; convert it, for example with ImageMagick: mogrify -type TrueColor FILE", want.C)
	}
	return errors.Join(ctx.Err(), p.add(origin{path, -1}, pixels))
}

func (p *predictor) arrays(file io.ReaderAt, size int64, each func([]byte) error) error {
	z, err := format.OpenNPZ(file, size)
	if err != nil {
		return err
	}
	for _, name := range []string{"x_test", "x"} {
		if !z.Has(name) {
			continue
		}
		if err := z.Records(name, p.shape, each); err != nil {
			return err
		}
		return nil
	}
	return fmt.Errorf("%w: it has the arrays %s; want x_test or x", format.ErrFormat, strings.Join(z.Names(), ", "))
}

// add runs the model once there is a batch.
func (p *predictor) add(from origin, image []byte) error {
	p.images = append(p.images, image...)
	p.origins = append(p.origins, from)
	if len(p.origins) < cap(p.origins) {
		return nil
	}
	return p.flush()
}

// flush runs the model over what there is.
func (p *predictor) flush() error {
	if len(p.origins) == 0 {
		return nil
	}
	defer func() { p.images, p.origins = p.images[:0], p.origins[:0] }()
	if _, err := p.instance.Predict(p.images, len(p.origins), p.scale); err != nil {
		return err
	}
	all := make([]float64, len(p.order))
	best := make([]guess, p.top)
	for i, from := range p.origins {
		for class := range all {
			p.order[class], all[class] = class, p.instance.Probability(i, class)
		}
		if math.IsNaN(all[0]) {
			return fmt.Errorf("%w: what the model makes of %s", nn.ErrNonFinite, from)
		}
		// The first of equals is what training counts as the prediction.
		slices.SortStableFunc(p.order, func(x, y int) int {
			switch {
			case all[x] > all[y]:
				return -1
			case all[x] < all[y]:
				return 1
			}
			return 0
		})
		for rank := range best {
			best[rank] = guess{p.order[rank], all[p.order[rank]]}
		}
		if err := p.out.prediction(from, best); err != nil {
			return outputError{err}
		}
	}
	return nil
}
