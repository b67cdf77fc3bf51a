// Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and prints what happened.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/golang/protobuf/ptypes"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	fulcrumv1 "fulcrum/v1"
)

const (
	deadline = 5 * time.Second  // for one attempt
	patience = 60 * time.Second // for all attempts at one request
)

// newRequestID makes a UUIDv7; github.com/google/uuid has NewV7.
func newRequestID() string {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		panic(err)
	}
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(raw, ms<<16|uint64(raw[6])<<8|uint64(raw[7]))
	raw[6] = raw[6]&0x0f | 0x70
	raw[8] = raw[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}

// call makes attempts until one is answered. Every attempt sends the same request with the same request_id, so it is executed once at
// most.
func call(ctx context.Context, attempt func(context.Context) error) error {
	until := time.Now().Add(patience)
	for {
		limited, cancel := context.WithTimeout(ctx, deadline)
		err := attempt(limited)
		cancel()
		if err == nil {
			return nil
		}
		pause, again := pauseAfter(err)
		if !again || time.Now().Add(pause).After(until) {
			return err
		}
		time.Sleep(pause)
	}
}

// pauseAfter tells how long after an error the same request may be sent again, and false when the error is the answer.
func pauseAfter(err error) (time.Duration, bool) {
	answer := status.Convert(err)
	reason, pause := "", time.Second
	switch answer.Code() {
	case codes.Unavailable:
		reason = "UNAVAILABLE"
	case codes.DeadlineExceeded:
		reason = "DEADLINE_EXCEEDED"
	default:
		return 0, false
	}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.Reason
		case *errdetails.RetryInfo:
			if delay, err := ptypes.Duration(detail.RetryDelay); err == nil {
				pause = delay
			}
		}
	}
	fmt.Printf("%s: the same request again in %.1f s\n", reason, pause.Seconds())
	return pause, true
}

// events are an account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed.
type events struct {
	trades   fulcrumv1.TradeServiceClient
	sequence uint64
	stream   fulcrumv1.TradeService_StreamAccountEventsClient
}

func (e *events) next(ctx context.Context) (*fulcrumv1.StreamAccountEventsResponse, error) {
	for {
		event, err := e.receive(ctx)
		if err == nil {
			e.sequence = event.Sequence
			return event, nil
		}
		e.stream = nil
		if err == io.EOF {
			continue
		}
		pause, again := pauseAfter(err)
		if !again {
			return nil, err
		}
		time.Sleep(pause)
	}
}

func (e *events) receive(ctx context.Context) (*fulcrumv1.StreamAccountEventsResponse, error) {
	if e.stream == nil {
		request := &fulcrumv1.StreamAccountEventsRequest{AccountId: "me", ResumeAfterSequence: e.sequence}
		stream, err := e.trades.StreamAccountEvents(ctx, request)
		if err != nil {
			return nil, err
		}
		e.stream = stream
	}
	return e.stream.Recv()
}

// until reads events up to the one that a request caused.
func (e *events) until(ctx context.Context, requestID string) error {
	for {
		event, err := e.next(ctx)
		if err != nil || event.RequestId == requestID {
			return err
		}
	}
}

func run(ctx context.Context, address string) error {
	// For a server with a certificate: grpc.WithTransportCredentials(credentials.NewTLS(nil)). From gRPC 1.34 on this one is spelt
	// grpc.WithTransportCredentials(insecure.NewCredentials()).
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	wallets := fulcrumv1.NewWalletServiceClient(connection)
	trades := fulcrumv1.NewTradeServiceClient(connection)

	initializing := &fulcrumv1.InitializeWalletRequest{AccountId: "me", RequestId: newRequestID()}
	var wallet *fulcrumv1.InitializeWalletResponse
	err = call(ctx, func(ctx context.Context) (err error) {
		wallet, err = wallets.InitializeWallet(ctx, initializing)
		return err
	})
	if err != nil {
		return err
	}
	var balances []string
	for _, money := range wallet.Balances {
		balances = append(balances, money.Amount+" "+money.CurrencyCode)
	}
	fmt.Println("wallet:", strings.Join(balances, ", "))

	opening := &fulcrumv1.OpenTradeRequest{
		AccountId: "me",
		RequestId: newRequestID(),
		Symbol:    "SOL_USDC",
		Side:      fulcrumv1.Side_SIDE_LONG,
		Size:      &fulcrumv1.OpenTradeRequest_Margin{Margin: "100"},
		Leverage:  "10",
	}
	var opened *fulcrumv1.OpenTradeResponse
	err = call(ctx, func(ctx context.Context) (err error) {
		opened, err = trades.OpenTrade(ctx, opening)
		return err
	})
	if err != nil {
		return err
	}
	trade := opened.Trade
	fmt.Printf("opened %s: %s %s at %s, liquidation at %s\n",
		trade.TradeId, trade.Quantity, trade.Symbol, trade.EntryPrice, trade.LiquidationPrice)

	events := &events{trades: trades, sequence: wallet.Sequence}
	if err := events.until(ctx, opening.RequestId); err != nil {
		return err
	}
	fmt.Printf("event: %s opened\n", trade.TradeId)

	closing := &fulcrumv1.CloseTradeRequest{AccountId: "me", RequestId: newRequestID(), TradeId: trade.TradeId}
	var closed *fulcrumv1.CloseTradeResponse
	err = call(ctx, func(ctx context.Context) (err error) {
		closed, err = trades.CloseTrade(ctx, closing)
		return err
	})
	if err != nil {
		return err
	}
	profit := closed.RealisedProfit
	fmt.Printf("closed %s at %s: profit %s %s\n", trade.TradeId, closed.ClosePrice, profit.Amount, profit.CurrencyCode)

	if err := events.until(ctx, closing.RequestId); err != nil {
		return err
	}
	fmt.Printf("event: %s closed\n", trade.TradeId)
	return nil
}

func main() {
	address := os.Getenv("FULCRUM_ADDRESS")
	if address == "" {
		address = "127.0.0.1:8080"
	}
	token := os.Getenv("FULCRUM_TOKEN")
	if token == "" {
		log.Fatal("FULCRUM_TOKEN is not set: `fulcrum token` makes one")
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token))
	defer cancel()
	if err := run(ctx, address); err != nil {
		log.Fatal(err)
	}
}
