package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
)

// importSource is what an import reads.
type importSource struct {
	files   []dataset.File
	leftOut []string // of other splits
}

func (s importSource) names() []string {
	var out []string
	for _, f := range s.files {
		out = append(out, f.Name)
	}
	return out
}

// splitOf finds the split in the path of a file of a Hugging Face folder: train-00000-of-00002.parquet, test/a.jsonl, my-validation.jsonl.
var splitOf = regexp.MustCompile(`(?:^|[/_.-])(train|test|validation|valid|val|dev|eval|evaluation)(?:[/_.-]|$)`)

// importFiles reads a file, or the files of one split of a folder, sorted by name.
func importFiles(path, split, kind string) (importSource, error) {
	info, err := os.Stat(path)
	if err != nil {
		return importSource{}, err
	}
	if !info.IsDir() {
		if filepath.Ext(path) == ".arrow" {
			return importSource{}, fmt.Errorf("%s: Arrow files are not read; write them as Parquet first (in Python: dataset.to_parquet(\"rows.parquet\"))", path)
		}
		b, err := readFile(path)
		return importSource{files: []dataset.File{{Name: path, Data: b}}}, err
	}
	byExt, arrow := map[string][]string{}, 0
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if p != path && d.IsDir() && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "__")) {
			return fs.SkipDir
		}
		switch ext := filepath.Ext(name); {
		case d.IsDir():
		case ext == ".parquet", ext == ".jsonl":
			byExt[ext] = append(byExt[ext], p) // a cache's files are links to others
		case ext == ".arrow":
			arrow++
		}
		return nil
	})
	if err != nil {
		return importSource{}, err
	}
	all := append(byExt[".parquet"], byExt[".jsonl"]...)
	switch {
	case len(all) == 0 && arrow > 0:
		return importSource{}, fmt.Errorf("%s: Arrow files are not read; write them as Parquet first (in Python: load_from_disk(%q).to_parquet(\"rows.parquet\"))", path, path)
	case len(all) == 0:
		return importSource{}, fmt.Errorf("%s: no .parquet and no .jsonl file is in this folder; name the file", path)
	case len(byExt) > 1:
		return importSource{}, fmt.Errorf("%s: it has both Parquet and JSONL files (%s, %s), which may be the same rows twice; name one file, or the folder of one kind", path, short(path, byExt[".parquet"][0]), short(path, byExt[".jsonl"][0]))
	}
	if all, err = ofTable(path, all, kind); err != nil {
		return importSource{}, err
	}
	return readSplit(path, all, split)
}

// ofTable keeps the files of one table where a folder holds both of ours: dpo/ and introspection/.
func ofTable(root string, all []string, kind string) ([]string, error) {
	tables := map[string][]string{}
	for _, p := range all {
		for part := range strings.SplitSeq(short(root, filepath.Dir(p)), "/") {
			if part == tableDPO || part == tableIntrospection {
				tables[part] = append(tables[part], p)
			}
		}
	}
	switch {
	case len(tables) < 2:
		return all, nil
	case kind == "":
		return nil, usage(fmt.Errorf("%s: it holds both dpo and introspection rows; say which with --kind", root))
	}
	return tables[kind], nil
}

func readSplit(root string, all []string, split string) (importSource, error) {
	var out importSource
	slices.Sort(all)
	var total int64
	splits := map[string]bool{}
	for _, p := range all {
		name := "train"
		if m := splitOf.FindStringSubmatch(strings.ToLower(short(root, p))); m != nil {
			name = m[1]
		}
		splits[name] = true
		if name != split {
			out.leftOut = append(out.leftOut, short(root, p))
			continue
		}
		b, err := readFile(p)
		if err != nil {
			return importSource{}, err
		}
		if total += int64(len(b)); total > maxInput {
			return importSource{}, fmt.Errorf("%s: its files have more than %d bytes (256 MiB) together; import less at once", root, maxInput)
		}
		out.files = append(out.files, dataset.File{Name: p, Data: b})
	}
	if len(out.files) == 0 {
		var have []string
		for s := range splits {
			have = append(have, s)
		}
		slices.Sort(have)
		return importSource{}, usage(fmt.Errorf("%s: no file is of split %q; there is %s: give --split", root, split, strings.Join(have, ", ")))
	}
	return out, nil
}

func short(root, p string) string {
	if rel, err := filepath.Rel(root, p); err == nil {
		return filepath.ToSlash(rel)
	}
	return p
}

// readRowsOf reads a file of rows or, where there is no such file, the data set of that name, as JSON lines.
func readRowsOf(cmd *cobra.Command, value, kind string) ([]byte, error) {
	b, err := readFile(value)
	name, table, both := strings.Cut(value, "/")
	if !errors.Is(err, fs.ErrNotExist) || activities.CheckImportName(name) != nil || both && table != tableDPO && table != tableIntrospection {
		return b, err
	}
	bucket, done, oerr := openBucket(cmd)
	if oerr != nil {
		return nil, fmt.Errorf("%w, and no data set of that name: %w", err, oerr)
	}
	defer done()
	d, serr := findDataSet(cmd.Context(), bucket, value)
	if serr == nil && d.Run != "" && !both { // of a run: the one that is asked for
		d, serr = findDataSet(cmd.Context(), bucket, value+"/"+tableOf(kind))
	}
	switch {
	case serr != nil:
		return nil, fmt.Errorf("there is no file %s, and no data set of that name: %w; `character data ls` lists them", value, serr)
	case d.Stage != kind:
		return nil, fmt.Errorf("data set %s holds %s rows, and %s are wanted here", d.Name, tableOf(d.Stage), tableOf(kind))
	}
	return encodeSet(cmd, bucket, d, "jsonl")
}
