"""."""
def line(row):
    if "broken" in row:
        return f"{row['slug']} BROKEN {row['broken']}"
    head = f"{row['slug']:34s} {row['seed']} {'fault' if row['faulty'] else 'ok   '} score {row['score']:.4g} nonfinite {row['nonfinite']} steps {row['steps']} plain {row['plain_s']:.1f} watched {row['watched_s']:.1f} replay {row['replay']} {row['error'] or ''}"
    seen = set(); out=[]
    for a in row["alerts"]:
        if (a[0], a[1]) not in seen:
            seen.add((a[0], a[1])); out.append(f"     {a[1]:8s} {a[0]} at {a[2]} since {a[3]} {a[4] or ''}: {a[5]}")
    return "\n".join([head, *out, f"     incidents {[(i[0], i[1]) for i in row['incidents']]} not run {row['not_run']}"])
def text(rows): return f"{len(rows)} runs"
def record(rows): pass
