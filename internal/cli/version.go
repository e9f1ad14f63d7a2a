// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"disdel/internal/nn/kernel"
	"disdel/internal/report"
	"disdel/internal/worker"
)

func versionLine() string {
	return fmt.Sprintf("disdel %s %s %s/%s kernels %s\n", worker.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernel.Best().Name)
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, the Go version and the kernel set",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			version, kernels := worker.Version(), kernel.Best().Name
			if asJSON {
				return report.JSON(a.stdout, map[string]string{
					"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "kernel_set": kernels,
				})
			}
			_, err := io.WriteString(a.stdout, versionLine())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	return cmd
}
