package main

import (
	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/schema"
)

func schemaCommand(term *terminal) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of job files, for editors",
		Example: "  meshrun schema > meshrun.schema.json",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			text, err := schema.JSONSchema()
			if err != nil {
				return err
			}
			return term.print(string(text))
		},
	}
}
