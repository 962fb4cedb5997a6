"""The fewest requests: some tickers each by itself, some sessions for the whole market. Pure.

A missing bar arrives when either its ticker or its session is asked for. So tickers and sessions
are the two sides of a bipartite graph with an edge for each missing bar, and the fewest requests
are its minimum vertex cover; by König's theorem a maximum flow finds it. Tickers that miss the same
sessions count as one vertex with a weight, and so do sessions that the same tickers miss: the graph
of a real job has a handful of them.
"""

from collections import defaultdict, deque
from collections.abc import Mapping

from backtestdb.market.session_mask import EMPTY, SessionMask


def choose_requests(missing: Mapping[str, SessionMask]) -> tuple[list[str], SessionMask]:
    """Given the missing sessions of each ticker, return the tickers to ask for one by one, and the
    sessions to ask for as a whole."""
    tickers: dict[SessionMask, list[str]] = defaultdict(list)
    for ticker, sessions in missing.items():
        if sessions:
            tickers[sessions].append(ticker)

    rows = list(tickers)
    groups = group_sessions(rows)
    columns = list(groups)

    edges = [
        [place for place, members in enumerate(columns) if members >> row & 1]
        for row in range(len(rows))
    ]
    # Of equally many requests those for tickers (rows) win: their answers are small.
    by_row, by_column = find_minimum_cover(
        [len(tickers[sessions]) for sessions in rows],
        [groups[members].bit_count() for members in columns],
        edges,
    )

    whole = EMPTY
    for place in by_column:
        whole |= groups[columns[place]]

    return [ticker for row in by_row for ticker in tickers[rows[row]]], whole


def group_sessions(rows: list[SessionMask]) -> dict[int, SessionMask]:
    """Return the sessions under the set of rows that miss them (bit n for row n)."""
    members: dict[int, int] = defaultdict(int)
    for number, sessions in enumerate(rows):
        for session in sessions.places():
            members[session] |= 1 << number
    groups: dict[int, int] = defaultdict(int)
    for session, rows_of_session in members.items():
        groups[rows_of_session] |= 1 << session
    return {rows_of_session: SessionMask(bits) for rows_of_session, bits in groups.items()}


def find_minimum_cover(
    weights: list[int], column_weights: list[int], edges: list[list[int]]
) -> tuple[list[int], list[int]]:
    """Return the lightest set of rows and columns with an end of each edge (row to column)."""
    supply, room = list(weights), list(column_weights)
    flow: dict[tuple[int, int], int] = defaultdict(int)
    carrying: list[set[int]] = [set() for _ in column_weights]
    while True:
        row_from, column_from, end = search(supply, room, edges, carrying)
        if end is None:
            return [row for row in range(len(weights)) if row not in row_from], sorted(column_from)
        push(supply, room, flow, carrying, row_from, column_from, end)


def search(
    supply: list[int], room: list[int], edges: list[list[int]], carrying: list[set[int]]
) -> tuple[dict[int, int | None], dict[int, int], int | None]:
    """Search breadth first from the rows with supply; return where each reached row and column was
    reached from, and a column that has room, if there is one. A row is reached back through a
    column that carries its flow."""
    row_from: dict[int, int | None] = {row: None for row, left in enumerate(supply) if left}
    column_from: dict[int, int] = {}

    waiting = deque(row_from)
    while waiting:
        row = waiting.popleft()
        for column in edges[row]:
            if column in column_from:
                continue
            column_from[column] = row
            if room[column]:
                return row_from, column_from, column
            for other in carrying[column]:
                if other not in row_from:
                    row_from[other] = column
                    waiting.append(other)

    return row_from, column_from, None


def push(
    supply: list[int],
    room: list[int],
    flow: dict[tuple[int, int], int],
    carrying: list[set[int]],
    row_from: dict[int, int | None],
    column_from: dict[int, int],
    end: int,
) -> None:
    """Send as much as fits along the path that `search` found."""
    forward, backward = [], []
    column: int | None = end
    while column is not None:
        row = column_from[column]
        forward.append((row, column))
        column = row_from[row]
        if column is not None:
            backward.append((row, column))

    start = forward[-1][0]
    amount = min(supply[start], room[end], *(flow[edge] for edge in backward))
    supply[start] -= amount
    room[end] -= amount

    for edge in forward:
        flow[edge] += amount
        carrying[edge[1]].add(edge[0])

    for edge in backward:
        flow[edge] -= amount
        if not flow[edge]:
            carrying[edge[1]].discard(edge[0])
