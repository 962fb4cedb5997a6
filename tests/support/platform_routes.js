// The platform's own universe routes, from its own sources. Prints its port, serves until it is ended.
// node --require tsx/cjs platform_routes.js BACKEND DATABASE: BACKEND is the platform's folder of that name, with node_modules.
const path = require("path");
const [backend, database] = process.argv.slice(2);
const load = (name) => require(path.join(backend, name));

load("src/database/db").initializeDatabase(database); // as at each of its starts: its whole schema
const app = load("node_modules/express")();
app.use("/api/scanner", load("src/api/routes/scanner").default);
const server = app.listen(0, "127.0.0.1", () => process.stdout.write(`port ${server.address().port}\n`));
