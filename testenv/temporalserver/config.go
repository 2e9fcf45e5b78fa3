package temporalserver

import (
	"path/filepath"
	"time"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

// clusterName is written into the file: it can never change.
const clusterName = "active"

// clusterID is an arbitrary fixed UUID; a cluster of one needs one all the same.
const clusterID = "3f0e6d0a-6c55-4a54-9d0c-6f1f1c9f2b11"

// workflowTaskTimeout is how long a step of a workflow waits that was lost with its worker or on its way there; the
// usual 10 s are most of a restart. Our workflows answer within milliseconds, and the server gives more from the fourth
// try on. It holds for workflows that name none, and is fixed when they start.
const workflowTaskTimeout = 3 * time.Second

// newServer configures all four services of a one-node cluster in this process.
func newServer(o Options, p ports, logger log.Logger) (temporal.Server, error) {
	frontend := p.address(o.IP, p.grpc)
	file := sqliteConfig(filepath.Join(o.Dir, dbName))

	var c config.Config
	c.Persistence = config.Persistence{
		DefaultStore:     "default",
		VisibilityStore:  "visibility",
		NumHistoryShards: 1, // SQLite has one writer
		DataStores:       map[string]config.DataStore{"default": {SQL: file}, "visibility": {SQL: file}},
	}
	if p := o.Postgres; p != nil {
		c.Persistence.NumHistoryShards = postgresShards
		c.Persistence.DataStores = map[string]config.DataStore{"default": {SQL: p.config(p.Database)}, "visibility": {SQL: p.config(p.visibility())}}
	}
	c.Global.Membership.MaxJoinDuration = 30 * time.Second
	c.Global.Membership.BroadcastAddress = o.IP
	c.ClusterMetadata = &cluster.Config{
		FailoverVersionIncrement: 10,
		MasterClusterName:        clusterName,
		CurrentClusterName:       clusterName,
		ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
			Enabled: true, InitialFailoverVersion: 1,
			RPCAddress: frontend, HTTPAddress: p.address(o.IP, p.http), ClusterID: clusterID,
		}},
	}
	c.DCRedirectionPolicy.Policy = "noop"
	c.PublicClient.HostPort = frontend
	c.Archival.History.State, c.Archival.Visibility.State = "disabled", "disabled"
	c.NamespaceDefaults.Archival.History.State, c.NamespaceDefaults.Archival.Visibility.State = "disabled", "disabled"
	c.Services = map[string]config.Service{}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for name, port := range map[primitives.ServiceName]int{
		primitives.FrontendService: p.grpc, primitives.HistoryService: p.history,
		primitives.MatchingService: p.matching, primitives.WorkerService: p.worker,
	} {
		var s config.Service
		s.RPC.GRPCPort, s.RPC.BindOnIP = port, o.IP
		if name == primitives.FrontendService {
			s.RPC.HTTPPort = p.http
		}
		c.Services[string(name)] = s
		hosts[name] = static.SingleLocalHost(p.address(o.IP, port))
	}
	authorizer, err := authorization.GetAuthorizerFromConfig(&c.Global.Authorization)
	if err != nil {
		return nil, err
	}
	claims, err := authorization.GetClaimMapperFromConfig(&c.Global.Authorization, logger)
	if err != nil {
		return nil, err
	}
	return temporal.NewServer(
		temporal.WithConfig(&c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorizer),
		temporal.WithChainedFrontendGrpcInterceptors(owned(o.Owner)),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claims }),
		temporal.WithDynamicConfigClient(dynamicconfig.StaticClient{
			dynamicconfig.EnableServerVersionCheck.Key(): false, // it would ask a host on the Internet
			// The server keeps the state of closed workflows for an hour, some 100 KB each: what a laptop looks at again is
			// that of its last runs, of six workflows each. Copies of events for other clusters nobody reads here.
			dynamicconfig.HistoryCacheHostLevelMaxSize.Key():                 256,
			dynamicconfig.XDCCacheMaxSizeBytes.Key():                         64 << 10,
			dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100, // the UI and `status` of one user
			// A web page whose name was made to point here (DNS rebinding) must not read histories by the JSON API.
			dynamicconfig.FrontendHTTPAllowedHosts.Key():                []string{"127.0.0.1:*", "localhost:*", "[::1]:*"},
			dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true, // added attributes are usable at once
			dynamicconfig.DefaultWorkflowTaskTimeout.Key():              workflowTaskTimeout,
		}),
	)
}
