// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/data"
	"disdel/internal/data/format"
)

const arraysExtension = ".npz"

func (a *app) datasetsExportCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "export DATASET FILE.npz",
		Short: "Write a data set as NumPy arrays",
		Long: `Export writes what disdel reads of a data set to a file for other programs, and
for disdel itself: x_train and x_test as uint8 (records, rows, columns, channels),
y_train and y_test as int64. A file that is there is replaced.`,
		Example: `  disdel datasets export digits digits.npz
  disdel predict digits digits.npz`,
		ValidArgsFunction: completeDataset,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s: want a data set and a file, %d arguments are given; there is: %s",
					commandName(cmd), len(args), strings.Join(data.Names(), ", "))
			}
			if !strings.EqualFold(filepath.Ext(args[1]), arraysExtension) {
				return fmt.Errorf("%s: file %s: want a name that ends in %s", commandName(cmd), args[1], arraysExtension)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkWritable(args[1]); err != nil {
				return err
			}
			sources, end := a.dataOptions(o)
			set, err := data.Open(cmd.Context(), args[0], sources)
			if end(); err != nil {
				return err
			}
			return writeFile(args[1], func(w io.Writer) error { return writeArrays(w, set) })
		},
	}
	o.dataFlags(cmd)
	cmd.Flags().BoolVar(&o.quiet, "quiet", false, "no progress on stderr")
	return cmd
}

func writeArrays(w io.Writer, set *data.Set) error {
	var arrays []format.NPZArray
	for _, part := range []struct {
		name  string
		split data.Split
	}{{"train", set.Train}, {"test", set.Test}} {
		n := part.split.Len()
		arrays = append(arrays,
			format.NPZArray{Name: "x_" + part.name, Dims: []int{n, set.Info.H, set.Info.W, set.Info.C}, Bytes: part.split.Pixels},
			format.NPZArray{Name: "y_" + part.name, Dims: []int{n}, Labels: part.split.Labels})
	}
	return format.WriteNPZ(w, arrays...)
}
