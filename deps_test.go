package opencharacter

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/opencharacter/opencharacter/"

// imports is the whole import graph between our packages: what each may import, tests apart. It is a statement of
// policy. Change it in the commit that explains why, never to make a build pass.
var imports = map[string]string{
	"spec":                              "",
	"permit":                            "spec",
	"codec":                             "",
	"constitution":                      "",
	"store":                             "",
	"report":                            "",
	"teacher":                           "",
	"metrics":                           "",
	"tensorboard":                       "",
	"heartbeat":                         "",
	"lm/gguf":                           "",
	"lm/safetensors":                    "",
	"lm/tokenizer":                      "",
	"lm/chat":                           "lm/tokenizer",
	"lm/hub":                            "lm/gguf lm/safetensors",
	"lm/export":                         "lm/gguf lm/hub lm/safetensors lm/tokenizer lm/transformer",
	"tensor/internal/kernel":            "",
	"tensor/internal/kernel/kerneltest": "tensor/internal/kernel",
	"tensor/internal/cpu":               "tensor/internal/kernel",
	"tensor":                            "tensor/internal/cpu tensor/internal/kernel",
	"lm/transformer":                    "lm/gguf lm/safetensors tensor",
	"lm/sample":                         "lm/transformer tensor",
	"lm/train":                          "lm/safetensors lm/transformer tensor",
	"dataset":                           "store",
	"store/storetest":                   "store",
	"dataset/filtertest":                "dataset spec",
	"teacher/teachertest":               "spec teacher",
	"evaluation":                        "",
	"evaluation/evaluationtest":         "evaluation spec",
	"activities":                        "constitution dataset evaluation heartbeat lm/chat lm/export lm/gguf lm/hub lm/sample lm/tokenizer lm/train lm/transformer permit report spec store teacher tensor tensorboard",
	"workflows":                         "activities spec store",
	"workers":                           "activities heartbeat lm/hub metrics permit store teacher workflows",
	"live":                              "activities report spec store workflows",
	"testenv/s3server":                  "",
	"testenv/temporalserver":            "",
	"testenv/teacher":                   "",
	"testenv/stack":                     "testenv/s3server testenv/temporalserver",
	"testenv/cluster":                   "",
	"testenv/chaos":                     "testenv/faultproxy testenv/tinymodel",
	"testenv/faultproxy":                "",
	"testenv/tinymodel":                 "lm/safetensors",
	"testenv/hostile":                   "",
	"testenv/scrape":                    "",
	"testenv/browser":                   "",
	"testenv/wallclock":                 "",
	"testenv/doclines":                  "",
	"serve":                             "lm/chat lm/sample lm/tokenizer lm/transformer",
	"cmd/character":                     "activities cmd/internal/cluster cmd/internal/columns cmd/internal/estimate cmd/internal/telemetry codec constitution dataset live lm/chat lm/hub lm/sample lm/tokenizer lm/train lm/transformer permit serve spec store tensor testenv/s3server testenv/stack workers workflows",
	"cmd/character-worker":              "cmd/internal/cluster cmd/internal/telemetry lm/hub store tensor workers",
	"cmd/internal/cluster":              "codec permit spec store",
	"cmd/internal/columns":              "",
	"cmd/internal/telemetry":            "metrics store tensor",
	"cmd/internal/estimate":             "activities constitution dataset lm/chat lm/train lm/transformer spec",
	"examples/internal/local":           "store",
	"examples/worker":                   "examples/internal/local lm/hub store workers",
	"examples/own":                      "activities dataset evaluation examples/internal/local lm/hub store teacher workers",
	"examples/pipeline":                 "activities examples/internal/local lm/hub store workers workflows",
	"bench/gemm":                        "tensor",
	"bench/engine":                      "lm/chat lm/gguf lm/hub lm/sample lm/tokenizer lm/train lm/transformer tensor",
	"bench/serve":                       "activities lm/chat lm/hub lm/sample lm/transformer serve tensor",
	"bench/chaos":                       "testenv/chaos",
	"bench/bandwidth":                   "lm/gguf lm/transformer tensor",
	"bench/overhead":                    "activities constitution dataset lm/hub lm/train lm/transformer tensor",
	"bench/soak":                        "testenv/tinymodel",
	"bench/peers/encode":                "lm/gguf lm/tokenizer",
	"bench/peers/material":              "constitution dataset spec",
	"bench/peers/ours":                  "lm/gguf lm/sample lm/train lm/transformer tensor",
}

// serverImporters may link the Temporal server, whose build costs minutes.
var serverImporters = []string{"testenv/temporalserver"}

// workflowImports is what else package workflows may import: workflowcheck does not see os.Getenv, math/rand/v2 or
// uuid.New; this list does.
const workflowImports = "bytes encoding/json errors fmt math slices strconv strings time go.temporal.io/api/enums/v1 go.temporal.io/sdk/temporal go.temporal.io/sdk/workflow"

// awsChain reads environment and home directory.
const awsChain = "github.com/aws/aws-sdk-go-v2/config"

var environment = regexp.MustCompile(`os\.(Getenv|LookupEnv|Environ|ExpandEnv|UserHomeDir|UserCacheDir|UserConfigDir)\(`)

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if d.IsDir() {
			if path != "." && (strings.ContainsAny(d.Name()[:1], "._") || d.Name() == "testdata" || d.Name() == "tools" || d.Name() == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if pkg == "." || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		allowed, known := imports[pkg]
		if !known {
			t.Errorf("%s: not in the import graph", pkg)
		}
		seen[pkg] = true
		if text, err := os.ReadFile(path); err != nil {
			return err
		} else if environment.Match(text) && !strings.HasPrefix(pkg, "cmd/") && !strings.HasPrefix(pkg, "testenv/") {
			t.Errorf("%s: reads the environment: only cmd/ may, and hands values down", path)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			imp, ours := strings.CutPrefix(name, module)
			switch {
			case ours && !slices.Contains(strings.Fields(allowed), imp):
				t.Errorf("%s: %s must not import %s", path, pkg, imp)
			case !ours && pkg == "workflows" && !slices.Contains(strings.Fields(workflowImports), name):
				t.Errorf("%s: workflows must not import %s: it is not on the allow-list", path, name)
			case strings.HasPrefix(name, "go.temporal.io/server") && !slices.Contains(serverImporters, pkg):
				t.Errorf("%s: only %v may import the Temporal server", path, serverImporters)
			case name == awsChain && !strings.HasPrefix(pkg, "cmd/"):
				t.Errorf("%s: %s reads the AWS environment and profiles: only cmd/ may import it", path, awsChain)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range imports {
		if !seen[pkg] {
			t.Errorf("%s is in the import graph but not in the tree", pkg)
		}
	}
}

func TestFileLengths(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return err
		}
		if strings.HasSuffix(path, ".go") {
			if n := lines(t, path); n > 500 {
				t.Errorf("%s has %d lines; over 500 is two files", path, n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, path string) int {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.PackageClauseOnly)
	if err != nil {
		t.Error(err)
		return 0
	}
	return fset.File(f.Pos()).LineCount()
}
