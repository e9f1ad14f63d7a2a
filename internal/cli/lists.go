// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/report"
	"disdel/internal/store"
)

func (a *app) modelsCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "models",
		Short: "List the models in the store, newest first",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			s, err := a.openToRead(cmd.Context(), o.store)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			models, err := control.Models(cmd.Context(), s, a.warn)
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
				fmt.Fprintf(a.stderr, "disdel: no models in %s yet; run: %s\n", s.URL(), o.next("train digits"))
				return nil
			}
			return report.Models(a.page(), rows)
		},
	}
	o.storeFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	cmd.AddCommand(a.modelsExportCommand())
	return cmd
}

func (a *app) jobsCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use: "jobs [JOB]", ValidArgsFunction: a.completeJob(o),
		Short: "List the jobs in the store, newest first, or show one",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s: want at most one job, %d are given (%s)", commandName(cmd), len(args), strings.Join(args, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			var id job.ID
			if len(args) == 1 {
				id = job.ID(args[0])
				if err := id.Validate(); err != nil {
					return usagef("%w", err)
				}
			}
			s, err := a.openToRead(ctx, o.store)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if id != "" {
				state, err := control.Load(ctx, s, id)
				if err != nil {
					return o.hint(err)
				}
				record, err := recordOf(ctx, s, state)
				if err != nil {
					return err
				}
				return a.print(o, record)
			}
			rows, broken, err := allJobs(ctx, s)
			switch {
			case err != nil:
				return err
			case o.json:
				for i := range rows {
					rows[i] = o.priced(rows[i])
				}
				err = report.JSON(a.stdout, map[string]any{"jobs": rows})
			case len(rows) == 0:
				fmt.Fprintf(a.stderr, "disdel: no jobs in %s yet; run: %s\n", s.URL(), o.next("train digits"))
			default:
				err = report.Jobs(a.page(), rows)
			}
			if broken > 0 {
				err = errors.Join(err, fmt.Errorf("%d of %d jobs cannot be read", broken, len(rows)))
			}
			return err
		},
	}
	o.storeFlag(cmd)
	o.priceFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	return cmd
}

// unreadable is the status in a list of a job whose log cannot be read.
const unreadable job.Status = "unreadable"

// allJobs reads every job, newest first. One that cannot be read keeps the
// others from nothing.
func allJobs(ctx context.Context, s store.Store) (rows []job.Record, broken int, err error) {
	logs, err := s.Logs(ctx, job.LogPrefix)
	if err != nil {
		return nil, 0, err
	}
	slices.Reverse(logs)
	rows = make([]job.Record, len(logs))
	started := map[job.ID]time.Time{}
	for i, name := range logs {
		id := job.ID(strings.TrimPrefix(name, job.LogPrefix))
		state, err := control.Load(ctx, s, id)
		if err == nil {
			rows[i], err = recordOf(ctx, s, state)
		}
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case err != nil:
			rows[i] = job.Record{Job: id, Status: unreadable, Error: err.Error(), Actions: []job.RecordAction{}}
			broken++
		default:
			started[id] = state.StartedAt
		}
	}
	// An id tells the second.
	slices.SortStableFunc(rows, func(x, y job.Record) int {
		a, b := started[x.Job], started[y.Job]
		if a.IsZero() || b.IsZero() || a.Truncate(time.Second) != b.Truncate(time.Second) {
			return strings.Compare(string(y.Job), string(x.Job))
		}
		return b.Compare(a)
	})
	return rows, broken, nil
}

func (a *app) datasetsCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "datasets",
		Short: "List the data sets and where they are",
		Long:  datasetsHelp,
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			sources, _ := a.dataOptions(o)
			rows := []report.DatasetRow{}
			for _, name := range data.Names() {
				found, err := data.Find(name)
				if err != nil {
					return err
				}
				i, place := found.Info(), found.Place(sources)
				rows = append(rows, report.DatasetRow{
					Name: i.Name, Title: i.Title, Shape: fmt.Sprintf("%dx%dx%d", i.H, i.W, i.C), Classes: i.Classes,
					Train: i.Train, Test: i.Test, Licence: i.Licence, Attribution: i.Attribution, Source: i.Source,
					Path: place.Path, DownloadBytes: place.Download,
				})
			}
			if o.json {
				return report.JSON(a.stdout, map[string]any{"datasets": rows})
			}
			return report.Datasets(a.page(), rows)
		},
	}
	o.dataDirFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	cmd.AddCommand(a.datasetsExportCommand())
	return cmd
}

const datasetsHelp = `Datasets lists the data sets that have a name, and where each one is: inside the
program, in a folder, or on the web, from where the first use downloads it.

They are looked for, in this order, in the folder that --data-dir or $DISDEL_DATA
names (in DIR/NAME, in DIR, and where torchvision puts them below DIR), in the
cache of downloads, in Keras's folder and in the system's. Files that differ from
the published ones are used all the same, and a notice says so; what is
downloaded must be the published.

Your own data is named by its path, with a slash or a dot in it where a data set
of the list has the same name:

  FILE.npz      arrays x_train, y_train, x_test and y_test, or x and y: images as
                uint8 (N x H x W or N x H x W x C), labels as whole numbers
  FILE.csv      a line for each image: its label, and its pixels as whole numbers
                of 0 to 255. The label is in the column that a header calls label,
                else in the first. Images are square and grey, unless --shape or a
                first line "# shape: HxWxC" says otherwise. FILE.csv.gz too.
  FOLDER        a folder of PNG or JPEG files for each class, or folders train and
                test (or val) with such folders. All images have one size, and all
                are grey or all in colour. Transparency is dropped, of 16 bits a
                channel the upper 8 are used.
  FOLDER        the four files of the MNIST family under their usual names

Where there is no test part, 20 % of each class become one: the same records each
time. A class of one record is trained on and not tested.`
