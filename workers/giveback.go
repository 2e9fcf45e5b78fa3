package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

// GiveBack ends the present attempt at a pending activity of workflow x in the name of a worker that will not end it, so
// that the next attempt begins at once. kind is the failure's type, why its text; identity is who says so. It returns
// false where nobody holds the activity any more. Were its worker at work after all, that one's commit would be fenced.
func GiveBack(ctx context.Context, c client.Client, namespace, identity string, x *common.WorkflowExecution, a *workflow.PendingActivityInfo, kind, why string) (bool, error) {
	return giveBack(ctx, c.WorkflowService(), namespace, identity, x, a, kind, why)
}

func giveBack(ctx context.Context, c workflowservice.WorkflowServiceClient, namespace, identity string, x *common.WorkflowExecution, a *workflow.PendingActivityInfo, kind, why string) (bool, error) {
	var err error
	switch a.GetState() {
	case enums.PENDING_ACTIVITY_STATE_STARTED:
		_, err = c.RespondActivityTaskFailedById(ctx, &workflowservice.RespondActivityTaskFailedByIdRequest{
			Namespace: namespace, WorkflowId: x.WorkflowId, RunId: x.RunId, ActivityId: a.ActivityId, Identity: identity, LastHeartbeatDetails: a.HeartbeatDetails,
			Failure: &failure.Failure{Message: why, Source: "character worker",
				FailureInfo: &failure.Failure_ApplicationFailureInfo{ApplicationFailureInfo: &failure.ApplicationFailureInfo{
					Type: kind, NextRetryDelay: durationpb.New(100 * time.Millisecond)}}},
		})
	case enums.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED:
		_, err = c.RespondActivityTaskCanceledById(ctx, &workflowservice.RespondActivityTaskCanceledByIdRequest{
			Namespace: namespace, WorkflowId: x.WorkflowId, RunId: x.RunId, ActivityId: a.ActivityId, Identity: identity})
	default:
		return false, nil
	}
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) { // it ended meanwhile
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("give activity %s of %s back: %w", a.ActivityId, x.WorkflowId, err)
	}
	return true, nil
}
