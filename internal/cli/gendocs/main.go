// SPDX-License-Identifier: Apache-2.0

// Command gendocs writes the reference of the command line, one Markdown file a
// command, into the folder that is its argument. What else lies there stays. It
// is a program of its own so that disdel does not link the generator.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"

	"disdel/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments: want the folder to write to", len(args))
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	return doc.GenMarkdownTree(cli.Root(), args[0])
}
