// SPDX-License-Identifier: Apache-2.0

package nn

import (
	"errors"
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
	if _, err := Named("resnet", Shape{8, 8, 1}, 10); !errors.Is(err, ErrUnknownModel) || !strings.Contains(err.Error(), "cnn, cnn-deep, mlp") {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := Named("cnn", Shape{3, 3, 1}, 10); !errors.Is(err, ErrSpec) {
		t.Errorf("too small for the pool: %v", err)
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
		"number of layers is 65":                {Input: Shape{1, 1, 1}, Classes: 4, Layers: make([]Layer, 65)},
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
