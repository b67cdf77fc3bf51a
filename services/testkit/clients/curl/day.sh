#!/bin/bash
# A trader's day through REST, with curl. What it prints: ../README.md. jq only takes JSON apart.
set -euo pipefail

read -r config
address=$(jq -r .address <<<"$config")
account=$(jq -r .account <<<"$config")
token=$(jq -r .token <<<"$config")
room=$(mktemp -d)
me="http://$address/v1/accounts/$account"
# Not an argument: other users of a machine see those.
printf 'header = "Authorization: Bearer %s"\nsilent\nshow-error\nmax-time = 240\n' "$token" >"$room/options"

streams=()
trap 'kill "${streams[@]}" 2>/dev/null || true; rm -rf "$room"' EXIT

say() { jq -cn "$@"; }

uuid7() {
    local time random
    time=$(printf '%012x' "$(date +%s%3N)")
    random=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s-%s-7%s-%x%s-%s\n' "${time:0:8}" "${time:8:4}" "${random:0:3}" $((0x${random:3:1} & 3 | 8)) "${random:4:3}" "${random:7:12}"
}

# call METHOD CURL-ARGUMENTS…: prints the line and leaves the answer in $answer.
call() {
    local method=$1 status
    shift
    status=$(curl -K "$room/options" -o "$room/answer" -w '%{http_code}' "$@")
    answer=$(cat "$room/answer")
    if [ "$status" = 200 ]; then
        say --arg method "$method" --argjson answer "$answer" '{$method, $answer}'
    else
        say --arg method "$method" --argjson error "$answer" '{$method, $error}'
    fi
}

# post METHOD ADDRESS BODY
post() { call "$1" --json "$3" "$2"; }

# watch NAME CURL-ARGUMENTS…: a stream into a file, one message a line.
watch() {
    local name=$1
    shift
    curl -K "$room/options" -N -H 'Accept: application/x-ndjson' "$@" >"$room/$name" &
    streams+=($!)
}

# until NAME FILTER: waits for a message, and prints the first of its kind.
until_said() {
    local found
    for _ in $(seq 2400); do
        # The last line may still be coming.
        found=$(sed '$!b;/}$/!d' "$room/$1" | jq -cn "first(inputs | select($2))" 2>/dev/null || true)
        if [ -n "$found" ]; then
            printf '%s\n' "$found"
            return
        fi
        sleep 0.05
    done
    echo "$1 does not say it" >&2
    return 1
}

id() { printf '"request_id":"%s"' "$(uuid7)"; }

post InitializeWallet "$me/wallet:initialize" "{$(id)}"
watch events "$me/events:stream"
watch quotes "http://$address/v1/quotes:stream?symbols=BTC_USDC"
until_said events .snapshot >/dev/null
say --argjson answer "$(until_said quotes .quote)" '{stream: "StreamQuotes", $answer}'

post Deposit "$me/wallet:deposit" "{$(id),\"amount\":{\"currencyCode\":\"USDC\",\"amount\":\"1000\"}}"
post Deposit "$me/wallet:deposit" "{$(id),\"amount\":{\"currencyCode\":\"USDC\",\"amount\":\"1.005\"}}"
post OpenTrade "$me/trades" "{$(id),\"symbol\":\"DOGE_USDC\",\"side\":\"SIDE_LONG\",\"margin\":\"500\",\"leverage\":\"50\"}"
post OpenTrade "$me/trades" "{$(id),\"symbol\":\"BTC_USDC\",\"side\":\"SIDE_LONG\",\"margin\":\"500\",\"leverage\":\"50\"}"
wanted='{"symbol":"BTC_USDC","side":"SIDE_SHORT","quantity":"0.5","leverage":"10","stopLossPrice":"13600"}'
key="Idempotency-Key: $(uuid7)"
call OpenTrade -H "$key" --json "$wanted" "$me/trades"
short=$(jq -r .trade.tradeId <<<"$answer")
call OpenTrade -H "$key" --json "$wanted" "$me/trades"
post ModifyTrade "$me/trades/$short:modify" "{$(id),\"stopLossPrice\":\"13700.5\",\"takeProfitPrice\":\"12800\",\"addMargin\":\"25.50\"}"
post CloseTrade "$me/trades/$short:close" "{$(id),\"percent\":\"50\"}"
call GetAccountSummary "$me/summary"

say '{waiting: "fall"}'
until_said events '.tradeClosed.reason == "CLOSE_REASON_LIQUIDATION"' >/dev/null
say '{waiting: "history"}'
read -r after
bid=$(jq -r .bid <<<"$after")
ask=$(jq -r .ask <<<"$after")
say --argjson answer "$(until_said quotes ".quote.bid == \"$bid\" and .quote.ask == \"$ask\"")" '{stream: "StreamQuotes", $answer}'

closing=$(uuid7)
post CloseTrade "$me/trades/$short:close" "{\"request_id\":\"$closing\"}"
post CloseTrade "$me/trades/$short:close" "{$(id)}"
call ListTrades "$me/trades?status=TRADE_STATUS_CLOSED"
call ListTransactions "$me/transactions?page_size=1000"
seconds=(--data-urlencode "start_time=$(jq -r .start <<<"$after")" --data-urlencode "end_time=$(jq -r .end <<<"$after")")
call ListCandles --get --data-urlencode interval=CANDLE_INTERVAL_1S "${seconds[@]}" "http://$address/v1/candles/BTC_USDC"
call GetOperation "$me/operations/$closing"
call ListBalances "$me/balances"

until_said events '.operationRefused.method == "CloseTrade"' >/dev/null
jq -cn 'label $last | inputs | select(.heartbeat | not) | ., (select(.operationRefused.method == "CloseTrade") | break $last)' "$room/events" |
    jq -c '{stream: "StreamAccountEvents", answer: .}'
say '{done: true}'
