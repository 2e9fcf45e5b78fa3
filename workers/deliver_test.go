package workers

import (
	"context"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestDeliver: what an attempt came to is offered for as long as nobody answers; what is answered is left to the SDK while
// it still has time.
func TestDeliver(t *testing.T) {
	done := &workflowservice.RespondActivityTaskCompletedRequest{}
	away := codes.Unavailable
	tests := []struct {
		name    string
		request any
		late    bool         // the SDK has given up
		answers []codes.Code // the last one stays
		want    codes.Code
		calls   int // 0: any number
	}{
		{"taken", done, false, []codes.Code{codes.OK}, codes.OK, 1},
		{"away", done, true, []codes.Code{away, codes.DeadlineExceeded, away, codes.OK}, codes.OK, 4},
		{"failure", &workflowservice.RespondActivityTaskFailedRequest{}, true, []codes.Code{away, codes.OK}, codes.OK, 2},
		{"cancellation", &workflowservice.RespondActivityTaskCanceledRequest{}, true, []codes.Code{away, codes.OK}, codes.OK, 2},
		{"gone", done, true, []codes.Code{away, codes.NotFound}, codes.NotFound, 2},
		{"refused", done, true, []codes.Code{codes.InvalidArgument}, codes.InvalidArgument, 1},
		{"closed", done, true, []codes.Code{codes.Canceled}, codes.Canceled, 1},
		{"busy, the SDK tries again", done, false, []codes.Code{codes.ResourceExhausted}, codes.ResourceExhausted, 1},
		{"busy after it was away", done, true, []codes.Code{away, codes.ResourceExhausted, codes.Unknown, codes.OK}, codes.OK, 4},
		{"ill for good", done, true, []codes.Code{codes.Internal}, codes.Internal, 0},
		{"away for good", done, true, []codes.Code{away}, away, 0},
		{"another call", &workflowservice.RespondWorkflowTaskCompletedRequest{}, true, []codes.Code{away}, away, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.late {
				cancel()
			}
			calls := 0
			invoke := func(ctx context.Context, _ string, req, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				if req != tt.request {
					t.Errorf("offered %v", req)
				}
				if _, limited := ctx.Deadline(); tt.name != "another call" && (!limited || ctx.Err() != nil) {
					t.Errorf("a call has no time of its own: %v", ctx.Err())
				}
				calls++
				return status.Error(tt.answers[min(calls, len(tt.answers))-1], "")
			}
			d := deliverer{offer: 300 * time.Millisecond, try: time.Minute, pause: time.Millisecond}
			if got := status.Code(d.call(ctx, "method", tt.request, nil, nil, invoke)); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
			if tt.calls > 0 && calls != tt.calls || calls == 0 || tt.calls == 0 && calls < 2 {
				t.Errorf("%d calls, want %d", calls, tt.calls)
			}
		})
	}
}
