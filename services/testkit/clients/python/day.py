"""A trader's day through gRPC, with grpcio and stubs made from the contract. What it prints: ../README.md."""

import json
import os
import sys
import threading
import time

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2  # noqa: F401 (registers the types of the details)

from fulcrum.v1 import (
    balance_service_pb2_grpc as balance,
    market_service_pb2_grpc as market,
    operation_service_pb2_grpc as operation,
    trade_service_pb2_grpc as trade,
    wallet_service_pb2_grpc as wallet,
)
from fulcrum.v1 import balance_service_pb2, market_service_pb2, operation_service_pb2, trade_service_pb2, wallet_service_pb2

MESSAGES = [balance_service_pb2, market_service_pb2, operation_service_pb2, trade_service_pb2, wallet_service_pb2]
PATIENCE_S = 120


def say(**line):
    print(json.dumps(line), flush=True)


def heard():
    return json.loads(sys.stdin.readline())


def uuid7():
    raw = bytearray(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


def to_json(message):
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


class Client:
    def __init__(self, config):
        self.account = config["account"]
        self.metadata = [("authorization", "Bearer " + config["token"])]
        channel = grpc.insecure_channel(config["address"])
        services = [
            balance.BalanceServiceStub,
            market.MarketServiceStub,
            operation.OperationServiceStub,
            trade.TradeServiceStub,
            wallet.WalletServiceStub,
        ]
        self.stubs = [service(channel) for service in services]

    def _method(self, name, request):
        stub = next(stub for stub in self.stubs if hasattr(stub, name))
        module = next(module for module in MESSAGES if hasattr(module, name + "Request"))
        return getattr(stub, name), json_format.ParseDict(request, getattr(module, name + "Request")())

    def call(self, name, **request):
        method, message = self._method(name, request)
        try:
            answer = to_json(method(message, timeout=PATIENCE_S, metadata=self.metadata))
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata())["grpc-status-details-bin"]
            status = status_pb2.Status.FromString(details)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            say(method=name, error=to_json(status))
            return None
        say(method=name, answer=answer)
        return answer

    def mine(self, name, **request):
        return self.call(name, account_id=self.account, **request)

    def change(self, name, **request):
        return self.mine(name, request_id=uuid7(), **request)

    def watch(self, name, **request):
        return Watch(*self._method(name, request), self.metadata)


class Watch:
    """A stream, read in the background."""

    def __init__(self, method, message, metadata):
        self.messages = []
        self.changed = threading.Condition()
        self.stream = method(message, metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for message in self.stream:
                with self.changed:
                    self.messages.append(to_json(message))
                    self.changed.notify_all()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                raise

    def until(self, wanted):
        """Waits for a message, and gives the first of its kind."""
        with self.changed:
            found = self.changed.wait_for(lambda: next(filter(wanted, self.messages), None), PATIENCE_S)
        assert found, "the stream does not say it"
        return found


def main():
    client = Client(heard())
    symbol = "BTC_USDC"
    client.change("InitializeWallet")
    events = client.watch("StreamAccountEvents", account_id=client.account)
    quotes = client.watch("StreamQuotes", symbols=[symbol])
    events.until(lambda it: "snapshot" in it)
    say(stream="StreamQuotes", answer=quotes.until(lambda it: True))

    usdc = lambda amount: {"currency_code": "USDC", "amount": amount}
    client.change("Deposit", amount=usdc("1000"))
    client.change("Deposit", amount=usdc("1.005"))
    client.change("OpenTrade", symbol="DOGE_USDC", side="SIDE_LONG", margin="500", leverage="50")
    client.change("OpenTrade", symbol=symbol, side="SIDE_LONG", margin="500", leverage="50")
    wanted = dict(symbol=symbol, side="SIDE_SHORT", quantity="0.5", leverage="10", stop_loss_price="13600", request_id=uuid7())
    short = client.mine("OpenTrade", **wanted)["trade"]["tradeId"]
    client.mine("OpenTrade", **wanted)
    client.change("ModifyTrade", trade_id=short, stop_loss_price="13700.5", take_profit_price="12800", add_margin="25.50")
    client.change("CloseTrade", trade_id=short, percent="50")
    client.mine("GetAccountSummary")

    say(waiting="fall")
    events.until(lambda it: it.get("tradeClosed", {}).get("reason") == "CLOSE_REASON_LIQUIDATION")
    say(waiting="history")
    after = heard()
    last = quotes.until(lambda it: (it["quote"]["bid"], it["quote"]["ask"]) == (after["bid"], after["ask"]))
    say(stream="StreamQuotes", answer=last)

    closing = uuid7()
    client.mine("CloseTrade", trade_id=short, request_id=closing)
    client.change("CloseTrade", trade_id=short)
    client.mine("ListTrades", status="TRADE_STATUS_CLOSED")
    client.mine("ListTransactions", page_size=1000)
    client.call("ListCandles", symbol=symbol, interval="CANDLE_INTERVAL_1S", start_time=after["start"], end_time=after["end"])
    client.mine("GetOperation", request_id=closing)
    client.mine("ListBalances")

    refused = events.until(lambda it: it.get("operationRefused", {}).get("method") == "CloseTrade")
    for event in events.messages[: events.messages.index(refused) + 1]:
        if "heartbeat" not in event:
            say(stream="StreamAccountEvents", answer=event)
    say(done=True)


main()
