package temporalserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// OwnerHeader is the header in which a client names whose server it means.
const OwnerHeader = "character-owner"

// Headers makes a client's calls name the owner: a HeadersProvider of client.Options.
type Headers string

// GetHeaders returns them.
func (h Headers) GetHeaders(context.Context) (map[string]string, error) {
	return map[string]string{OwnerHeader: string(h)}, nil
}

// owned refuses calls that mean another owner's server.
func owned(owner string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		for _, meant := range md.Get(OwnerHeader) {
			if owner != "" && meant != owner {
				return nil, status.Error(codes.Unavailable, "this Temporal server belongs to another data directory; yours had this address before")
			}
		}
		return handle(ctx, req)
	}
}
