// Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and prints what happened.

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import fulcrum.v1.CloseTradeRequest;
import fulcrum.v1.InitializeWalletRequest;
import fulcrum.v1.OpenTradeRequest;
import fulcrum.v1.Side;
import fulcrum.v1.StreamAccountEventsRequest;
import fulcrum.v1.StreamAccountEventsResponse;
import fulcrum.v1.TradeServiceGrpc;
import fulcrum.v1.TradeServiceGrpc.TradeServiceBlockingStub;
import fulcrum.v1.WalletServiceGrpc;
import fulcrum.v1.WalletServiceGrpc.WalletServiceBlockingStub;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.AbstractBlockingStub;
import io.grpc.stub.MetadataUtils;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.Iterator;
import java.util.Locale;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Collectors;

public final class Client {
  private static final Duration DEADLINE = Duration.ofSeconds(5); // for one attempt
  private static final Duration PATIENCE = Duration.ofSeconds(60); // for all attempts at one request
  private static final Metadata.Key<com.google.rpc.Status> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", ProtoUtils.metadataMarshaller(com.google.rpc.Status.getDefaultInstance()));
  private static final SecureRandom RANDOM = new SecureRandom();

  /** A new UUIDv7. */
  private static String newRequestId() {
    long time = System.currentTimeMillis() << 16 | 0x7000 | RANDOM.nextLong() & 0xfff;
    long rest = 0x8000_0000_0000_0000L | RANDOM.nextLong() >>> 2;
    return new UUID(time, rest).toString();
  }

  /** Sends a request until it is answered. Every attempt has the same request_id, so it is executed once at most. */
  private static <S extends AbstractBlockingStub<S>, A> A call(S stub, Function<S, A> attempt) throws InterruptedException {
    Instant until = Instant.now().plus(PATIENCE);
    while (true) {
      try {
        return attempt.apply(stub.withDeadlineAfter(DEADLINE.toMillis(), TimeUnit.MILLISECONDS));
      } catch (StatusRuntimeException error) {
        Optional<Duration> pause = pauseAfter(error);
        if (pause.isEmpty() || Instant.now().plus(pause.get()).isAfter(until)) {
          throw error;
        }
        Thread.sleep(pause.get().toMillis());
      }
    }
  }

  /** How long after an error the same request may be sent again; nothing when the error is the answer. */
  private static Optional<Duration> pauseAfter(StatusRuntimeException error) {
    Status.Code code = error.getStatus().getCode();
    if (code != Status.Code.UNAVAILABLE && code != Status.Code.DEADLINE_EXCEEDED) {
      return Optional.empty();
    }
    String reason = code.name();
    Duration pause = Duration.ofSeconds(1);
    com.google.rpc.Status status = error.getTrailers() == null ? null : error.getTrailers().get(DETAILS);
    try {
      for (Any detail : status == null ? java.util.List.<Any>of() : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(RetryInfo.class)) {
          com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
          pause = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        }
      }
    } catch (InvalidProtocolBufferException malformed) {
      throw error;
    }
    System.out.printf(Locale.ROOT, "%s: the same request again in %.1f s%n", reason, pause.toMillis() / 1000.0);
    return Optional.of(pause);
  }

  /** The account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed. */
  private static final class Events {
    private final TradeServiceBlockingStub trades;
    private long sequence;
    private Iterator<StreamAccountEventsResponse> stream;

    Events(TradeServiceBlockingStub trades, long sequence) {
      this.trades = trades;
      this.sequence = sequence;
    }

    StreamAccountEventsResponse next() throws InterruptedException {
      while (true) {
        try {
          if (stream == null) {
            stream =
                trades.streamAccountEvents(
                    StreamAccountEventsRequest.newBuilder().setAccountId("me").setResumeAfterSequence(sequence).build());
          }
          if (stream.hasNext()) {
            StreamAccountEventsResponse event = stream.next();
            sequence = event.getSequence();
            return event;
          }
          stream = null;
        } catch (StatusRuntimeException error) {
          stream = null;
          Thread.sleep(pauseAfter(error).orElseThrow(() -> error).toMillis());
        }
      }
    }

    /** Reads events up to the one that a request caused. */
    void until(String requestId) throws InterruptedException {
      while (!next().getRequestId().equals(requestId)) {}
    }
  }

  private static void trade(ManagedChannel channel, String token) throws InterruptedException {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    var authorization = MetadataUtils.newAttachHeadersInterceptor(headers);
    WalletServiceBlockingStub wallets = WalletServiceGrpc.newBlockingStub(channel).withInterceptors(authorization);
    TradeServiceBlockingStub trades = TradeServiceGrpc.newBlockingStub(channel).withInterceptors(authorization);

    var initializing = InitializeWalletRequest.newBuilder().setAccountId("me").setRequestId(newRequestId()).build();
    var wallet = call(wallets, stub -> stub.initializeWallet(initializing));
    System.out.println(
        wallet.getBalancesList().stream()
            .map(money -> money.getAmount() + " " + money.getCurrencyCode())
            .collect(Collectors.joining(", ", "wallet: ", "")));

    var opening =
        OpenTradeRequest.newBuilder()
            .setAccountId("me")
            .setRequestId(newRequestId())
            .setSymbol("SOL_USDC")
            .setSide(Side.SIDE_LONG)
            .setMargin("100")
            .setLeverage("10")
            .build();
    var trade = call(trades, stub -> stub.openTrade(opening)).getTrade();
    System.out.printf(
        "opened %s: %s %s at %s, liquidation at %s%n",
        trade.getTradeId(), trade.getQuantity(), trade.getSymbol(), trade.getEntryPrice(), trade.getLiquidationPrice());

    var events = new Events(trades, wallet.getSequence());
    events.until(opening.getRequestId());
    System.out.printf("event: %s opened%n", trade.getTradeId());

    var closing =
        CloseTradeRequest.newBuilder().setAccountId("me").setRequestId(newRequestId()).setTradeId(trade.getTradeId()).build();
    var closed = call(trades, stub -> stub.closeTrade(closing));
    var profit = closed.getRealisedProfit();
    System.out.printf(
        "closed %s at %s: profit %s %s%n", trade.getTradeId(), closed.getClosePrice(), profit.getAmount(), profit.getCurrencyCode());

    events.until(closing.getRequestId());
    System.out.printf("event: %s closed%n", trade.getTradeId());
  }

  public static void main(String[] arguments) throws Exception {
    String address = System.getenv().getOrDefault("FULCRUM_ADDRESS", "127.0.0.1:8080");
    String token = Optional.ofNullable(System.getenv("FULCRUM_TOKEN")).orElseThrow(() -> new Exception("FULCRUM_TOKEN is not set"));
    // For a server with a certificate: TlsChannelCredentials.create().
    ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try (var context = Context.current().withCancellation()) { // ends the stream with the program
      context.run(
          () -> {
            try {
              trade(channel, token);
            } catch (InterruptedException interrupted) {
              Thread.currentThread().interrupt();
            }
          });
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }
}
