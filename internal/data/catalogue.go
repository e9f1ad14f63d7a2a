// SPDX-License-Identifier: Apache-2.0

package data

import (
	"strings"

	"disdel/internal/data/fetch"
	"disdel/internal/data/format"
)

// The names of the four files of the MNIST family, as idxSet reads them.
var idxNames = []string{
	"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
	"t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
}

// publications are the data sets that are not inside the program.
func publications() []published {
	return []published{mnist(), fashionMNIST(), cifar10(), cifar100(), binaryAlphaDigits()}
}

// mirrored are the URLs of a file that several folders on the web have.
func mirrored(name string, bases ...string) []string {
	for i := range bases {
		bases[i] += name
	}
	return bases
}

func mnist() published {
	file := func(name string, bytes int64, sha256 string) fetch.File {
		return fetch.File{Name: name, Bytes: bytes, SHA256: sha256, URLs: mirrored(name,
			"https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")}
	}
	return published{
		info: Info{
			Name: "mnist", Title: "MNIST handwritten digits", Source: "https://storage.googleapis.com/cvdf-datasets/mnist/",
			Licence:     "CC-BY-SA-3.0",
			Attribution: "Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits, 1998",
			H:           28, W: 28, C: 1, Classes: 10, ClassNames: strings.Fields("0 1 2 3 4 5 6 7 8 9"),
			Train: 60000, Test: 10000, Scale: 1.0 / 255,
		},
		files: []fetch.File{
			file(idxNames[0], 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
			file(idxNames[1], 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
			file(idxNames[2], 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
			file(idxNames[3], 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
		},
		layouts:     []layout{{idxNames, readIDXLayout}, {[]string{"mnist.npz"}, readNPZLayout}},
		torchvision: "MNIST/raw", keras: "datasets",
		digest: "38efcd6ab13fea84c10dd07b6a0b1ed75de028b4689e3bfe3cf5390ad6023ec4",
	}
}

func fashionMNIST() published {
	file := func(name string, bytes int64, sha256 string) fetch.File {
		return fetch.File{Name: name, Bytes: bytes, SHA256: sha256, URLs: mirrored(name,
			"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/")}
	}
	return published{
		info: Info{
			Name: "fashion_mnist", Title: "Fashion-MNIST articles of clothing", Source: "https://github.com/zalandoresearch/fashion-mnist",
			Licence:     "MIT",
			Attribution: "H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017, copyright Zalando SE",
			H:           28, W: 28, C: 1, Classes: 10,
			ClassNames: []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"},
			Train:      60000, Test: 10000, Scale: 1.0 / 255,
		},
		files: []fetch.File{
			file(idxNames[0], 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
			file(idxNames[1], 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
			file(idxNames[2], 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
			file(idxNames[3], 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
		},
		layouts:     []layout{{idxNames, readIDXLayout}},
		torchvision: "FashionMNIST/raw", keras: "datasets/fashion-mnist",
		// Debian's package dataset-fashion-mnist.
		system: "datasets/fashion-mnist",
		digest: "34b66ac9901c826dca0deb4af081d0dddd09e62afe0ec96ef015f135ef6048ce",
	}
}

// pickled is what Keras and torchvision keep of the CIFAR sets.
const pickled = "Python's pickle format is not read, only the binary version"

func cifar10() published {
	const archive = "cifar-10-binary.tar.gz"
	files := cifarFiles{
		labels: format.CIFAR{10}, folder: "cifar-10-batches-bin",
		train: []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
		test:  []string{"test_batch.bin"},
	}
	return published{
		info: Info{
			Name: "cifar10", Title: "CIFAR-10 small photographs", Source: "https://www.cs.toronto.edu/~kriz/cifar.html",
			Attribution: "A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
			H:           32, W: 32, C: 3, Classes: 10,
			ClassNames: strings.Fields("airplane automobile bird cat deer dog frog horse ship truck"),
			Train:      50000, Test: 10000, Scale: 1.0 / 255,
		},
		files: []fetch.File{{
			Name: archive, URLs: mirrored(archive, "https://www.cs.toronto.edu/~kriz/"),
			Bytes: 170052171, SHA256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
		}},
		layouts: files.layouts(archive),
		keras:   "datasets",
		unread:  map[string]string{"cifar-10-batches-py": pickled},
		digest:  "3864a54b020fac700695e914f6c8060a14a13a1ac253498b10ebeb71fa6af533",
	}
}

// cifar100 has the fine labels. What its files hold once extracted is not
// published, so only the archive can be compared.
func cifar100() published {
	const archive = "cifar-100-binary.tar.gz"
	files := cifarFiles{
		labels: format.CIFAR{20, 100}, folder: "cifar-100-binary",
		train: []string{"train.bin"}, test: []string{"test.bin"},
	}
	return published{
		info: Info{
			Name: "cifar100", Title: "CIFAR-100 small photographs, fine labels", Source: "https://www.cs.toronto.edu/~kriz/cifar.html",
			Attribution: "A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
			H:           32, W: 32, C: 3, Classes: 100, ClassNames: strings.Fields(cifar100Names),
			Train: 50000, Test: 10000, Scale: 1.0 / 255,
		},
		files: []fetch.File{{
			Name: archive, URLs: mirrored(archive, "https://www.cs.toronto.edu/~kriz/"),
			Bytes: 168513733, SHA256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
		}},
		layouts: files.layouts(archive),
		keras:   "datasets",
		unread:  map[string]string{"cifar-100-python": pickled},
	}
}

func binaryAlphaDigits() published {
	const file = "binaryalphadigs.mat"
	return published{
		info: Info{
			Name: "binary_alpha_digits", Title: "Binary Alphadigits", Source: "https://cs.nyu.edu/~roweis/data.html",
			Attribution: "S. Roweis: Binary Alphadigits",
			H:           20, W: 16, C: 1, Classes: 36,
			ClassNames: strings.Split("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", ""),
			// Of 39 images of each class, holdOut takes 8.
			Train: 36 * 31, Test: 36 * 8, Scale: 1,
		},
		files: []fetch.File{{
			Name: file, URLs: mirrored(file, "https://cs.nyu.edu/~roweis/data/"),
			Bytes: 532304, SHA256: "3ee9392e64e4e3bb7b35502b69bf2555a0b4197c1b31048c4189b84bc0bc6ea7",
		}},
		layouts: []layout{{[]string{file}, alphaDigits}},
		digest:  "e72e816cd986fc514f2c36cad4305ef208280e76a9cbfd80da944e4896cf3b17",
	}
}

const cifar100Names = `
	apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
	castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
	elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
	man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
	pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
	skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
	tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm`
