package temporalserver

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence"
	persistencesql "go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/common/resolver"
	"go.temporal.io/server/schema"
	schemav12 "go.temporal.io/server/schema/postgresql/v12"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Postgres says where a server keeps its state instead of a SQLite file: as a cluster does. Two databases, Database and
// Database_visibility, are made when missing.
type Postgres struct {
	Addr           string // host:port
	User, Password string // may make databases
	Database       string // empty means "temporal"
}

// postgresShards can never change for a database. One process needs few.
const postgresShards = 4

func (p Postgres) withDefaults() (Postgres, error) {
	p.Database = cmp.Or(p.Database, "temporal")
	if _, _, err := net.SplitHostPort(p.Addr); err != nil {
		return p, fmt.Errorf("temporal: PostgreSQL address %q: %w; write HOST:PORT", p.Addr, err)
	}
	if p.User == "" {
		return p, fmt.Errorf("temporal: PostgreSQL on %s: no user is named", p.Addr)
	}
	return p, nil
}

func (p Postgres) visibility() string { return p.Database + "_visibility" }

func (p Postgres) config(database string) *config.SQL {
	return &config.SQL{
		PluginName: postgresql.PluginNamePGX, ConnectAddr: p.Addr, ConnectProtocol: "tcp", User: p.User, Password: p.Password,
		DatabaseName: database, MaxConns: 20, MaxIdleConns: 20, MaxConnLifetime: time.Hour,
	}
}

// prepare makes the databases, from the files inside the server's module.
func (p Postgres) prepare(ctx context.Context, l log.Logger) error {
	for _, d := range []struct{ database, folder, version string }{
		{p.Database, "temporal", schemav12.Version}, {p.visibility(), "visibility", schemav12.VisibilityVersion},
	} {
		if ctx.Err() != nil {
			return fmt.Errorf("temporal: %w", context.Cause(ctx))
		}
		if err := p.create(d.database, "postgresql/v12/"+d.folder+"/schema.sql", d.version, l); err != nil {
			return fmt.Errorf("temporal: database %s on %s: %w", d.database, p.Addr, err)
		}
	}
	return nil
}

// create makes a database that is not there. One of another release is refused: this is for tests, which begin anew.
func (p Postgres) create(database, file, version string, l log.Logger) (err error) {
	// A handle to a database that is not there says so only later, in other words: make it first.
	server, err := p.open("postgres", l)
	if err != nil {
		return err
	}
	if err := errors.Join(server.CreateDatabase(database), server.Close()); err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	db, err := p.open(database, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.CreateSchemaVersionTables(); err != nil {
		return fmt.Errorf("make its tables: %w", err)
	}
	switch had, err := db.ReadSchemaVersion(database); {
	case err == nil && had == version:
		return nil
	case err == nil:
		return fmt.Errorf("its schema is version %s and this server's is %s: use another database, or temporal-sql-tool", had, version)
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("read its version: %w", err)
	}
	text, err := fs.ReadFile(schema.Assets(), file)
	if err != nil {
		return err
	}
	statements, err := persistence.LoadAndSplitQueryFromReaders([]io.Reader{bytes.NewReader(text)})
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for _, s := range statements {
		if err := db.Exec(s); err != nil {
			return fmt.Errorf("make its tables: %w; if an earlier start was cut off, drop the database", err)
		}
	}
	return db.UpdateSchemaVersion(database, version, version) // last: a database with a version is whole
}

func (p Postgres) open(database string, l log.Logger) (sqlplugin.AdminDB, error) {
	db, err := persistencesql.NewSQLAdminDB(sqlplugin.DbKindUnknown, p.config(database), resolver.NewNoopResolver(), l, metrics.NoopMetricsHandler)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return db, nil
}

// register makes the namespace; that of a SQLite file is there before the server starts.
func register(ctx context.Context, c client.Client, o Options) error {
	if o.Postgres == nil {
		return nil
	}
	_, err := c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{Namespace: o.Namespace, WorkflowExecutionRetentionPeriod: durationpb.New(o.Retention)})
	var exists *serviceerror.NamespaceAlreadyExists
	if errors.As(err, &exists) {
		return nil
	}
	return err
}
