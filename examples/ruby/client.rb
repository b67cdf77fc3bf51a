# Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and prints what happened.

require "google/protobuf/well_known_types"
require "google/rpc/error_details_pb"
require "google/rpc/status_pb"
require "grpc"
require "securerandom"

require "fulcrum/v1/trade_service_services_pb"
require "fulcrum/v1/wallet_service_services_pb"

include Fulcrum::V1

ADDRESS = ENV.fetch("FULCRUM_ADDRESS", "127.0.0.1:8080")
METADATA = { "authorization" => "Bearer #{ENV.fetch("FULCRUM_TOKEN")}" }.freeze
DEADLINE_S = 5 # for one attempt
PATIENCE_S = 60 # for all attempts at one request

# For a server with a certificate: GRPC::Core::ChannelCredentials.new.
WALLETS = WalletService::Stub.new(ADDRESS, :this_channel_is_insecure)
TRADES = TradeService::Stub.new(ADDRESS, :this_channel_is_insecure)

# A new UUIDv7. Ruby 3.3 has SecureRandom.uuid_v7.
def new_request_id
  time = (Time.now.to_f * 1000).to_i.to_s(16).rjust(12, "0")
  random = SecureRandom.uuid
  "#{time[0, 8]}-#{time[8, 4]}-7#{random[15..]}"
end

def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

# Sends a request until it is answered. Every attempt has the same request_id, so it is executed once at most.
def call(stub, method, request)
  patient_until = now + PATIENCE_S
  begin
    stub.public_send(method, request, deadline: Time.now + DEADLINE_S, metadata: METADATA)
  rescue GRPC::Unavailable, GRPC::DeadlineExceeded => error
    pause_s = pause_after(error)
    raise if now + pause_s > patient_until

    sleep pause_s
    retry
  end
end

# Seconds after which the same request may be sent again.
def pause_after(error)
  reason, pause_s = error.class.name.split("::").last, 1.0
  details = error.metadata["grpc-status-details-bin"]
  (details ? Google::Rpc::Status.decode(details).details : []).each do |detail|
    reason = detail.unpack(Google::Rpc::ErrorInfo).reason if detail.is(Google::Rpc::ErrorInfo)
    if detail.is(Google::Rpc::RetryInfo)
      delay = detail.unpack(Google::Rpc::RetryInfo).retry_delay
      pause_s = delay.seconds + delay.nanos / 1e9
    end
  end
  puts format("%s: the same request again in %.1f s", reason, pause_s)
  pause_s
end

# The account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed.
def follow(sequence)
  Enumerator.new do |events|
    loop do
      request = StreamAccountEventsRequest.new(account_id: "me", resume_after_sequence: sequence)
      TRADES.stream_account_events(request, metadata: METADATA).each do |event|
        sequence = event.sequence
        events << event
      end
    rescue GRPC::Unavailable, GRPC::DeadlineExceeded => error
      sleep pause_after(error)
    end
  end
end

# Reads events up to the one that a request caused.
def wait_for(events, request)
  loop { break if events.next.request_id == request.request_id }
end

$stdout.sync = true
wallet = call(WALLETS, :initialize_wallet, InitializeWalletRequest.new(account_id: "me", request_id: new_request_id))
puts "wallet: #{wallet.balances.map { |money| "#{money.amount} #{money.currency_code}" }.join(", ")}"

opening = OpenTradeRequest.new(
  account_id: "me", request_id: new_request_id, symbol: "SOL_USDC", side: :SIDE_LONG, margin: "100", leverage: "10"
)
trade = call(TRADES, :open_trade, opening).trade
puts "opened #{trade.trade_id}: #{trade.quantity} #{trade.symbol} at #{trade.entry_price}, liquidation at #{trade.liquidation_price}"

events = follow(wallet.sequence)
wait_for(events, opening)
puts "event: #{trade.trade_id} opened"

closing = CloseTradeRequest.new(account_id: "me", request_id: new_request_id, trade_id: trade.trade_id)
closed = call(TRADES, :close_trade, closing)
profit = closed.realised_profit
puts "closed #{trade.trade_id} at #{closed.close_price}: profit #{profit.amount} #{profit.currency_code}"

wait_for(events, closing)
puts "event: #{trade.trade_id} closed"
