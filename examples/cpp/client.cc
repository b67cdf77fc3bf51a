// Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and prints what happened.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>

#include <thread>
#include <utility>

#include "fulcrum/v1/trade_service.grpc.pb.h"
#include "fulcrum/v1/wallet_service.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

using namespace fulcrum::v1;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kDeadline = 5s;   // for one attempt
constexpr auto kPatience = 60s;  // for all attempts at one request

// A setting from the environment.
std::string Setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  if (value == nullptr) value = otherwise;
  if (value == nullptr) throw std::runtime_error(std::string(name) + " is not set");
  return value;
}

// A new UUIDv7.
std::string NewRequestId() {
  static std::mt19937_64 random{std::random_device{}()};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const uint64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const uint64_t a = random(), b = random();
  char text[37];
  std::snprintf(text, sizeof text, "%08x-%04x-7%03x-%04x-%012llx", unsigned(ms >> 16), unsigned(ms & 0xffff), unsigned(a & 0xfff),
                unsigned(0x8000 | (a >> 16 & 0x3fff)), static_cast<unsigned long long>(b & 0xffffffffffff));
  return text;
}

// How long after an error the same request may be sent again; nothing when the error is the answer.
std::optional<std::chrono::milliseconds> PauseAfter(const grpc::Status& error) {
  const bool is_timeout = error.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  if (error.error_code() != grpc::StatusCode::UNAVAILABLE && !is_timeout) return std::nullopt;
  google::rpc::Status status;
  status.ParseFromString(error.error_details());
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  for (const auto& detail : status.details()) {
    if (!detail.UnpackTo(&info)) detail.UnpackTo(&retry);
  }
  std::chrono::milliseconds pause = 1s;
  if (retry.has_retry_delay()) pause = retry.retry_delay().seconds() * 1s + retry.retry_delay().nanos() / 1'000'000 * 1ms;
  const std::string reason = !info.reason().empty() ? info.reason() : is_timeout ? "DEADLINE_EXCEEDED" : "UNAVAILABLE";
  std::cout << reason << ": the same request again in " << std::fixed << std::setprecision(1) << pause.count() / 1000.0 << " s" << std::endl;
  return pause;
}

[[noreturn]] void Fail(const grpc::Status& error) {
  throw std::runtime_error(std::to_string(error.error_code()) + ": " + error.error_message());
}

class Client {
 public:
  Client(const std::shared_ptr<grpc::Channel>& channel, const std::string& token)
      : wallets(WalletService::NewStub(channel)), trades(TradeService::NewStub(channel)), authorization_("Bearer " + token) {}

  const std::unique_ptr<WalletService::Stub> wallets;
  const std::unique_ptr<TradeService::Stub> trades;

  std::unique_ptr<grpc::ClientContext> Context() const {
    auto context = std::make_unique<grpc::ClientContext>();
    context->AddMetadata("authorization", authorization_);
    return context;
  }

  // Sends a request until it is answered. Every attempt has the same request_id, so it is executed once at most.
  template <typename Stub, typename Request, typename Answer>
  Answer Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Answer*), const Request& request) {
    const auto until = Clock::now() + kPatience;
    for (;;) {
      auto context = Context();
      context->set_deadline(std::chrono::system_clock::now() + kDeadline);
      Answer answer;
      const grpc::Status status = (stub.*method)(context.get(), request, &answer);
      if (status.ok()) return answer;
      const auto pause = PauseAfter(status);
      if (!pause || Clock::now() + *pause > until) Fail(status);
      std::this_thread::sleep_for(*pause);
    }
  }

 private:
  const std::string authorization_;
};

// The account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed.
class Events {
 public:
  Events(Client& client, uint64_t sequence) : client_(client), sequence_(sequence) {}
  ~Events() {
    if (!reader_) return;
    context_->TryCancel();
    reader_->Finish();
  }

  StreamAccountEventsResponse Next() {
    for (;;) {
      if (!reader_) Open();
      StreamAccountEventsResponse event;
      if (reader_->Read(&event)) {
        sequence_ = event.sequence();
        return event;
      }
      const grpc::Status status = reader_->Finish();
      reader_.reset();
      if (status.ok()) continue;
      const auto pause = PauseAfter(status);
      if (!pause) Fail(status);
      std::this_thread::sleep_for(*pause);
    }
  }

  // Reads events up to the one that a request caused.
  void Until(const std::string& request_id) {
    while (Next().request_id() != request_id) continue;
  }

 private:
  void Open() {
    StreamAccountEventsRequest request;
    request.set_account_id("me");
    request.set_resume_after_sequence(sequence_);
    context_ = client_.Context();
    reader_ = client_.trades->StreamAccountEvents(context_.get(), request);
  }

  Client& client_;
  uint64_t sequence_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<StreamAccountEventsResponse>> reader_;
};

int main() try {
  // For a server with a certificate: grpc::SslCredentials({}).
  const auto channel = grpc::CreateChannel(Setting("FULCRUM_ADDRESS", "127.0.0.1:8080"), grpc::InsecureChannelCredentials());
  Client client(channel, Setting("FULCRUM_TOKEN", nullptr));

  InitializeWalletRequest initializing;
  initializing.set_account_id("me");
  initializing.set_request_id(NewRequestId());
  const InitializeWalletResponse wallet = client.Call(*client.wallets, &WalletService::Stub::InitializeWallet, initializing);
  std::cout << "wallet: ";
  const char* comma = "";
  for (const auto& money : wallet.balances()) {
    std::cout << std::exchange(comma, ", ") << money.amount() << " " << money.currency_code();
  }
  std::cout << std::endl;

  OpenTradeRequest opening;
  opening.set_account_id("me");
  opening.set_request_id(NewRequestId());
  opening.set_symbol("SOL_USDC");
  opening.set_side(SIDE_LONG);
  opening.set_margin("100");
  opening.set_leverage("10");
  const Trade trade = client.Call(*client.trades, &TradeService::Stub::OpenTrade, opening).trade();
  std::cout << "opened " << trade.trade_id() << ": " << trade.quantity() << " " << trade.symbol() << " at " << trade.entry_price()
            << ", liquidation at " << trade.liquidation_price() << std::endl;

  Events events(client, wallet.sequence());
  events.Until(opening.request_id());
  std::cout << "event: " << trade.trade_id() << " opened" << std::endl;

  CloseTradeRequest closing;
  closing.set_account_id("me");
  closing.set_request_id(NewRequestId());
  closing.set_trade_id(trade.trade_id());
  const CloseTradeResponse closed = client.Call(*client.trades, &TradeService::Stub::CloseTrade, closing);
  std::cout << "closed " << trade.trade_id() << " at " << closed.close_price() << ": profit " << closed.realised_profit().amount() << " "
            << closed.realised_profit().currency_code() << std::endl;

  events.Until(closing.request_id());
  std::cout << "event: " << trade.trade_id() << " closed" << std::endl;
} catch (const std::exception& error) {
  std::cerr << "failed: " << error.what() << std::endl;
  return 1;
}
