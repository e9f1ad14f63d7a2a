// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/report"
)

func (a *app) modelsCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "models",
		Short: "List the models in the store, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			s, err := a.openStore(cmd.Context(), o.store)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			models, err := control.Models(cmd.Context(), s)
			if err != nil {
				return err
			}
			rows := make([]report.ModelRow, len(models))
			for i, m := range models {
				rows[i] = modelRow(m)
			}
			if o.json {
				return report.JSON(a.stdout, map[string]any{"models": rows})
			}
			if len(rows) == 0 {
				fmt.Fprintf(a.stderr, "disdel: no models in %s yet; run: disdel train digits\n", s.URL())
				return nil
			}
			return report.Models(a.stdout, rows)
		},
	}
	o.storeFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	return cmd
}

func (a *app) jobsCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "jobs [JOB]",
		Short: "List the jobs in the store, newest first, or show one",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			s, err := a.openStore(ctx, o.store)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if len(args) == 1 {
				id := job.ID(args[0])
				if err := id.Validate(); err != nil {
					return usagef("%w", err)
				}
				state, err := control.Load(ctx, s, id)
				if err != nil {
					return err
				}
				return a.print(o, state.Record())
			}
			logs, err := s.Logs(ctx, job.LogPrefix)
			if err != nil {
				return err
			}
			slices.Reverse(logs)
			rows := []job.Record{}
			for _, name := range logs {
				state, err := control.Load(ctx, s, job.ID(strings.TrimPrefix(name, job.LogPrefix)))
				if err != nil {
					return err
				}
				rows = append(rows, state.Record())
			}
			if o.json {
				return report.JSON(a.stdout, map[string]any{"jobs": rows})
			}
			if len(rows) == 0 {
				fmt.Fprintf(a.stderr, "disdel: no jobs in %s yet; run: disdel train digits\n", s.URL())
				return nil
			}
			return report.Jobs(a.stdout, rows)
		},
	}
	o.storeFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	return cmd
}

func (a *app) datasetsCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "datasets",
		Short: "List the data sets",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rows := []report.DatasetRow{}
			for _, name := range data.Names() {
				found, err := data.Find(name)
				if err != nil {
					return err
				}
				i := found.Info()
				rows = append(rows, report.DatasetRow{
					Name: i.Name, Title: i.Title, Shape: fmt.Sprintf("%dx%dx%d", i.H, i.W, i.C), Classes: i.Classes,
					Train: i.Train, Test: i.Test, Licence: i.Licence, Attribution: i.Attribution, Source: i.Source,
				})
			}
			if o.json {
				return report.JSON(a.stdout, map[string]any{"datasets": rows})
			}
			return report.Datasets(a.stdout, rows)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	return cmd
}
