// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestNamedModels(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     Shape
		params int
	}{
		{"cnn", Shape{28, 28, 1}, 347146},
		{"cnn", Shape{32, 32, 3}, 896 + 15*15*32*64 + 64 + 650},
		{"cnn", Shape{4, 5, 2}, 18*32 + 32 + 32*64 + 64 + 650}, // 2x3 pools to 1x1
		{"mlp", Shape{28, 28, 1}, 784*128 + 128 + 128*64 + 64 + 650},
		{"cnn-deep", Shape{28, 28, 1}, 65568 + 7*7*64*128 + 128 + 1290},
		{"cnn-deep", Shape{32, 32, 3}, 65568 + 2*9*32 + 8*8*64*128 + 128 + 1290},
		{"cnn-deep", Shape{20, 16, 1}, 65568 + 5*4*64*128 + 128 + 1290},
		{"lenet5", Shape{28, 28, 1}, 61706}, // as published
		{"lenet5", Shape{32, 32, 1}, 61706},
		{"lenet5", Shape{32, 32, 3}, 62006},
		{"lenet5", Shape{20, 16, 1}, 61706 - (400-6*16)*120},
		{"resnet20", Shape{32, 32, 3}, 269722 + 2*688}, // 0.27 million are learned
		{"resnet20", Shape{8, 8, 1}, 269434 + 2*688},
	} {
		s := named(t, c.name, c.in, 10)
		if s.ParamCount() != c.params {
			t.Errorf("%s %v: %d parameters, want %d", c.name, c.in, s.ParamCount(), c.params)
		}
		back, err := ParseSpec(s.Canonical())
		if err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s does not survive JSON: %v", s.Canonical(), err)
		}
	}
	if _, err := Named("resnet", Shape{8, 8, 1}, 10); !errors.Is(err, ErrUnknownModel) || !strings.Contains(err.Error(), "cnn, cnn-deep, lenet5, mlp, resnet20") {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := Named("cnn", Shape{3, 3, 1}, 10); !errors.Is(err, ErrSpec) {
		t.Errorf("too small for the pool: %v", err)
	}
	if _, err := Named("lenet5", Shape{8, 8, 1}, 10); !errors.Is(err, ErrSpec) ||
		err.Error() != "model lenet5 for input 8x8x1: nn: bad model: records need 12x12 pixels at least" {
		t.Errorf("too small for lenet5: %v", err)
	}
}

func TestParamsAndCanonicalForm(t *testing.T) {
	s := named(t, "cnn", Shape{8, 8, 3}, 10)
	want := []Param{
		{Name: "conv2d_1.weight", Shape: []int{3, 3, 3, 32}, Offset: 0, Len: 864},
		{Name: "conv2d_1.bias", Shape: []int{32}, Offset: 864, Len: 32},
		{Name: "dense_1.weight", Shape: []int{288, 64}, Offset: 896, Len: 18432},
		{Name: "dense_1.bias", Shape: []int{64}, Offset: 19328, Len: 64},
		{Name: "dense_2.weight", Shape: []int{64, 10}, Offset: 19392, Len: 640},
		{Name: "dense_2.bias", Shape: []int{10}, Offset: 20032, Len: 10},
	}
	if got := s.Params(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	const canonical = `{"name":"cnn","input":{"h":8,"w":8,"c":3},"classes":10,"layers":[` +
		`{"kind":"conv2d","filters":32,"kernel":3},{"kind":"relu"},{"kind":"maxpool","pool":2},{"kind":"flatten"},` +
		`{"kind":"dense","units":64},{"kind":"relu"},{"kind":"dense","units":10}]}`
	if got := string(s.Canonical()); got != canonical {
		t.Errorf("got %s", got)
	}
}

func TestBadSpecs(t *testing.T) {
	dense := Layer{Kind: KindDense, Units: 4}
	flat := Layer{Kind: KindFlatten}
	for want, s := range map[string]Spec{
		"input height is 0":                     {Input: Shape{0, 1, 1}, Classes: 4, Layers: []Layer{dense}},
		"input width is 4097":                   {Input: Shape{1, 4097, 1}, Classes: 4, Layers: []Layer{dense}},
		"input channels is -1":                  {Input: Shape{1, 1, -1}, Classes: 4, Layers: []Layer{dense}},
		"has 68719476736 values":                {Input: Shape{4096, 4096, 4096}, Classes: 4, Layers: []Layer{flat, dense}},
		"classes is 1":                          {Input: Shape{1, 1, 1}, Classes: 1, Layers: []Layer{dense}},
		"number of layers is 0":                 {Input: Shape{1, 1, 1}, Classes: 4},
		"number of layers is 129":               {Input: Shape{1, 1, 1}, Classes: 4, Layers: make([]Layer, 129)},
		"layer 0 (dense): input 2x1x1":          {Input: Shape{2, 1, 1}, Classes: 4, Layers: []Layer{dense}},
		"layer 1 (dense): the last":             {Input: Shape{1, 1, 1}, Classes: 5, Layers: []Layer{flat, dense}},
		"layer 1 (relu): the last":              {Input: Shape{1, 1, 1}, Classes: 4, Layers: []Layer{dense, {Kind: KindReLU}}},
		`layer 0 ("conv3d"): unknown`:           {Input: Shape{1, 1, 1}, Classes: 4, Layers: []Layer{{Kind: "conv3d"}, dense}},
		"layer 0 (conv2d): kernel 3 does":       {Input: Shape{2, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 3, Filters: 1}, flat, dense}},
		"layer 0 (conv2d): filters is 0":        {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 3}, flat, dense}},
		"layer 0 (conv2d): units is 3, but":     {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 3, Filters: 1, Units: 3}, flat, dense}},
		"layer 0 (maxpool): pool is 17":         {Input: Shape{99, 99, 1}, Classes: 4, Layers: []Layer{{Kind: KindMaxPool, Pool: 17}, flat, dense}},
		"layer 0 (maxpool): pool 5 does":        {Input: Shape{9, 4, 1}, Classes: 4, Layers: []Layer{{Kind: KindMaxPool, Pool: 5}, flat, dense}},
		"layer 0 (dense): units is 65537":       {Input: Shape{1, 1, 1}, Classes: 4, Layers: []Layer{{Kind: KindDense, Units: 65537}, dense}},
		"layer 1 (dense): more than 268435456":  {Input: Shape{128, 128, 1}, Classes: 4, Layers: []Layer{flat, {Kind: KindDense, Units: 65536}, dense}},
		"layer 0 (conv2d): output 4095x4096x40": {Input: Shape{4096, 4096, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 1, Filters: 4096}, flat, dense}},
		"layer 0 (conv2d): stride is 33":        {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 3, Filters: 1, Stride: 33}, flat, dense}},
		"layer 0 (conv2d): stride is -1":        {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 3, Filters: 1, Stride: -1}, flat, dense}},
		`layer 0 (conv2d): padding is "full"`:   {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindConv2D, Kernel: 3, Filters: 1, Padding: "full"}, flat, dense}},
		`layer 1 (flatten): padding is "same",`: {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{flat, {Kind: KindFlatten, Padding: "same"}, dense}},
		"layer 0 (avgpool): pool is 0":          {Input: Shape{9, 9, 1}, Classes: 4, Layers: []Layer{{Kind: KindAvgPool}, flat, dense}},
		"layer 0 (avgpool): pool 10 does":       {Input: Shape{9, 99, 1}, Classes: 4, Layers: []Layer{{Kind: KindAvgPool, Pool: 10}, flat, dense}},
		"layer 0 (dropout): rate is 1,":         {Input: Shape{1, 1, 9}, Classes: 4, Layers: []Layer{{Kind: KindDropout, Rate: 1}, dense}},
		"layer 0 (dropout): rate is NaN":        {Input: Shape{1, 1, 9}, Classes: 4, Layers: []Layer{{Kind: KindDropout, Rate: math.NaN()}, dense}},
		"layer 0 (relu): rate is 0.5, but":      {Input: Shape{1, 1, 9}, Classes: 4, Layers: []Layer{{Kind: KindReLU, Rate: 0.5}, dense}},
		"layer 0 (batchnorm): units is 2, but":  {Input: Shape{1, 1, 9}, Classes: 4, Layers: []Layer{{Kind: KindBatchNorm, Units: 2}, dense}},
		"layer 0 (batchnorm): no_bias is":       {Input: Shape{1, 1, 9}, Classes: 4, Layers: []Layer{{Kind: KindBatchNorm, NoBias: true}, dense}},
		"layer 1 (dropout): the last":           {Input: Shape{1, 1, 9}, Classes: 4, Layers: []Layer{dense, {Kind: KindDropout, Rate: 0.5}}},
		"layer 1 (add): back is 0, not in 2":    {Input: Shape{1, 1, 4}, Classes: 4, Layers: []Layer{dense, {Kind: KindAdd}, dense}},
		"layer 1 (add): back is 1, not in 2":    {Input: Shape{1, 1, 4}, Classes: 4, Layers: []Layer{dense, {Kind: KindAdd, Back: 1}, dense}},
		"layer 1 (add): back is -1, not in 2":   {Input: Shape{1, 1, 4}, Classes: 4, Layers: []Layer{dense, {Kind: KindAdd, Back: -1}, dense}},
		"only the input and 1 layers are":       {Input: Shape{1, 1, 4}, Classes: 4, Layers: []Layer{dense, {Kind: KindAdd, Back: 3}, dense}},
		"adds 1x1x5 of the input, 2 back, to 1": {Input: Shape{1, 1, 5}, Classes: 4, Layers: []Layer{dense, {Kind: KindAdd, Back: 2}, dense}},
		"adds 1x1x9 of layer 0, 3 back, to 1x1": {Input: Shape{1, 1, 5}, Classes: 4, Layers: []Layer{{Kind: KindDense, Units: 9}, dense, dense, {Kind: KindAdd, Back: 3}, dense}},
		"adds every 2 rows and columns of 5x4x": {Input: Shape{5, 4, 1}, Classes: 4, Layers: []Layer{{Kind: KindMaxPool, Pool: 2}, {Kind: KindAdd, Back: 2, Stride: 2}, flat, dense}},
		"layer 1 (flatten): back is 2, but":     {Input: Shape{1, 1, 4}, Classes: 4, Layers: []Layer{dense, {Kind: KindFlatten, Back: 2}, dense}},
		"layer 1 (add): the last":               {Input: Shape{1, 1, 4}, Classes: 4, Layers: []Layer{dense, {Kind: KindAdd, Back: 2}}},
		"name: more than 128":                   {Name: strings.Repeat("x", 129), Input: Shape{1, 1, 1}, Classes: 4, Layers: []Layer{dense}},
	} {
		err := s.Validate()
		want = strings.Replace(want, "4095x", "4096x", 1)
		if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if _, err := Compile(s, Config{Batch: 1}); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: compiled: %v", want, err)
		}
		if s.Params() != nil || s.ParamCount() != 0 {
			t.Errorf("%s: has parameters", want)
		}
	}
	for _, text := range []string{
		``, `{}`, `[]`, `null`,
		`{"name":"a","input":{"h":1,"w":1,"c":1},"classes":2,"layers":[{"kind":"dense","units":2}],"more":1}`,
		`{"name":"a","input":{"h":1,"w":1,"c":1},"classes":2,"layers":[{"kind":"dense","units":2}]} {}`,
		`{"name":"a","input":{"h":1,"w":1,"c":1},"classes":2,"layers":[{"kind":"dense","units":2.5}]}`,
	} {
		if _, err := ParseSpec([]byte(text)); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestComplete(t *testing.T) {
	in := Shape{20, 16, 1}
	const layers = `"layers":[{"kind":"conv2d","filters":4,"kernel":3,"stride":1,"padding":"valid"},{"kind":"dropout","rate":-0.0},{"kind":"flatten"}`
	want := Spec{Name: "mine", Input: in, Classes: 7, Layers: []Layer{
		{Kind: KindConv2D, Filters: 4, Kernel: 3}, {Kind: KindDropout}, {Kind: KindFlatten}, {Kind: KindDense, Units: 7},
	}}
	for _, text := range []string{
		`{"name":"mine",` + layers + `,{"kind":"dense"}]}`,
		`{"name":"mine",` + layers + `,{"kind":"dense","units":7}]}`,
		`{"name":"mine","input":{"h":20,"w":16,"c":1},"classes":7,` + layers + `,{"kind":"dense","units":7}]}` + "\n",
	} {
		s, err := Complete([]byte(text), in, 7)
		if err != nil || !reflect.DeepEqual(s, want) || math.Signbit(s.Layers[1].Rate) {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		`{"name":"a"}`: "number of layers is 0",
		`{"name":"a","layers":[{"kind":"flatten"},{"kind":"conv2d","filters":4,"kernel":3},{"kind":"dense"}]}`: "line 1, column 42: layer 1 (conv2d): kernel 3 does not fit input 1x1x320",
		`{"name":"a","layers":[{"kind":"flatten"},{"kind":"dense","units":"10"}]}`:                             "line 1, column 66: layers.units is string, want a whole number",
		`{"name":"a","layers":[{"kind":"flatten"},{"kind":"dense","unit":10}]}`:                                `line 1, column 58: unknown field "unit", known are: back, filters, kernel, kind, no_bias, padding, pool, rate, stride, units`,
		`{"name":"a","layers":[{"kind":"flatten"},{"kind":"dense","units":10}]}`:                               "layer 1 (dense): the last layer must be dense with 7 units",
		`{"name":"a","layers":[{"kind":"flatten"},null,{"kind":"dense"}]}`:                                     `layer 1 (""): unknown kind, known are: conv2d, relu`,
		`{"name":"a","input":{"h":28,"w":28,"c":1},"layers":[{"kind":"flatten"},{"kind":"dense"}]}`:            "the model is for input 28x28x1, the data set has 20x16x1",
		`{"name":"a","classes":10,"layers":[{"kind":"flatten"},{"kind":"dense"}]}`:                             "the model is for 10 classes, the data set has 7",
		`{"name":"a","layers":[` + strings.Repeat(`{},`, 128) + `{}]}`:                                         "number of layers is 129",
		`{"name":"a","layers":{}}`:                     "line 1, column 22: layers is object, want a list",
		`{"name":"a","layers":[]} x`:                   "line 1, column 26: more text follows the value",
		strings.Repeat(" ", MaxSpecBytes) + "{}":       "65538 bytes of JSON, more than 65536",
		`{"name":"a","layers":[{"kind":"dense"}`:       "line 1, column 39: the text ends early",
		`{"name":"a","layers":[{"kind":"dense"}],"x":`: `line 1, column 41: unknown field "x"`,
	} {
		if _, err := Complete([]byte(text), in, 7); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: want %q, got %v", text, want, err)
		}
	}
}

// Whatever a file holds, the answer is an error about the model, or a spec that
// says everything about itself and compiles to what it says.
func FuzzComplete(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "models", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no models: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, 8, 8, 3, 10)
	}
	f.Add([]byte(`{"layers":[{"kind":"flatten"},{"kind":"dense"}]}`), 1, 1, 1, 2)
	f.Fuzz(func(t *testing.T, data []byte, h, w, c, classes int) {
		s, err := Complete(data, Shape{h, w, c}, classes)
		if err != nil {
			if !errors.Is(err, ErrSpec) {
				t.Fatalf("not about the model: %v", err)
			}
			return
		}
		if s.Input != (Shape{h, w, c}) || s.Classes != classes || s.Validate() != nil {
			t.Fatalf("%+v is not for the data set: %v", s, s.Validate())
		}
		back, err := ParseSpec(s.Canonical())
		if err != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("%s does not survive JSON: %+v, %v", s.Canonical(), back, err)
		}
		for _, training := range []bool{true, false} {
			p, err := Compile(s, Config{Batch: 3, Train: training, Optimizer: SGD(0.1)})
			if err != nil {
				t.Fatal(err)
			}
			if n := p.Sizes().Total; n < 4*int64(s.ParamCount()) || n > 1<<50 {
				t.Fatalf("%d bytes", n)
			}
		}
	})
}

func TestBadConfig(t *testing.T) {
	s := named(t, "mlp", Shape{2, 2, 1}, 3)
	for _, batch := range []int{-1, 0, MaxBatch + 1} {
		if _, err := Compile(s, Config{Batch: batch}); !errors.Is(err, ErrInput) {
			t.Errorf("batch %d: %v", batch, err)
		}
	}
	good := Adam(1e-3)
	for _, change := range []func(*Optimizer){
		func(o *Optimizer) { o.Kind = "lion" },
		func(o *Optimizer) { o.LearningRate = 0 },
		func(o *Optimizer) { o.Beta1 = 1 },
		func(o *Optimizer) { o.Beta2 = -0.1 },
		func(o *Optimizer) { o.Epsilon = 0 },
	} {
		o := good
		change(&o)
		if _, err := Compile(s, Config{Batch: 1, Train: true, Optimizer: o}); !errors.Is(err, ErrOptimizer) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
