// A platform as it is: better-sqlite3, which brings the newest SQLite. One life of it: start, migrate, write, leave.
// node platform.js MODULE DATABASE LOG LIFE SEED. See platform_process.py for the one that needs no Node.
const [module_, database, log, life, seed] = process.argv.slice(2);
const fs = require("fs");
const Database = require(module_);

let state = Number(seed) * 1000 + Number(life) + 1;
const chance = () => ((state = (state * 48271) % 2147483647) / 2147483647); // repeatable, as the seed says

const db = new Database(database, { timeout: 5000 });
db.pragma(`journal_mode = ${chance() < 0.5 ? "WAL" : "DELETE"}`);
db.exec(`CREATE TABLE IF NOT EXISTS platform_log (token TEXT PRIMARY KEY, life INTEGER);
  CREATE TABLE IF NOT EXISTS strategies (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
  CREATE INDEX IF NOT EXISTS platform_log_by_life ON platform_log (life);`);
if (chance() < 0.3)
  db.exec(`CREATE VIEW IF NOT EXISTS lives AS
    SELECT group_concat(token ORDER BY life) AS tokens FROM platform_log`);
if (chance() < 0.2) db.exec(`CREATE TABLE IF NOT EXISTS migrated_${life % 7} (a, b)`);

const said = fs.openSync(log, "a");
const count = Math.floor(chance() * 40);
for (let number = 0; number < count; number++) {
  const token = `${life}-${number}`;
  db.transaction(() => {
    db.prepare("INSERT INTO platform_log VALUES (?, ?)").run(token, Number(life));
  }).immediate();
  fs.writeSync(said, `${token}\n`); // only what SQLite said is there
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, chance() * 4);
}
if (chance() < 0.5) db.close();
process.exit(0);
