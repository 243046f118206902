package dev.tfcompress.demo

import android.content.Intent
import dev.tfcompress.demo.json.Json
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import java.io.File

class BenchmarkActivityTest : ScreenTest() {
    private fun start(manifest: String?) = Robolectric.buildActivity(BenchmarkActivity::class.java, Intent().putExtra("manifest", manifest)).setup()

    private fun prepared(run: String): File {
        val folder = File(app.getExternalFilesDir(null), run).also { it.mkdirs() }
        val source = Given.folder()
        val bundle = Given.bundle(source)
        val model = bundle.manifest.models[0]
        File(source, model.file).copyTo(File(folder, "model0.tflite"))
        val values = bundle.feed(model, 0).getValue("image")
        File(folder, "in0_0").writeBytes(ByteArray(values.limit()) { values[it] })
        val asked = mapOf(
            "name" to "a", "sha256" to model.sha256, "file" to "model0.tflite", "signature" to model.signature,
            "inputs" to listOf(mapOf("name" to "image", "file" to "in0_0")),
        )
        val manifest = mapOf(
            "schema" to 1, "run" to run, "runs" to 3, "turns" to 1, "threads" to 1, "accelerator" to "xnnpack", "profile" to false, "models" to listOf(asked),
        )
        return File(folder, "manifest.json").also { it.writeText(Json.write(manifest)) }
    }

    @Test
    fun `an intent of adb measures and writes the results`() {
        val manifest = prepared("bench_7")
        val controller = start("/sdcard/Android/data/dev.tfcompress.demo/files/bench_7/manifest.json")
        controller.recreate()  // as a rotation does: the run goes on, once
        settle()
        assertEquals("Done. The results are in\n${manifest.parent}", controller.get().text(R.id.line))
        val results = Json.parse(File(manifest.parentFile, "results.json").readText()) as Map<*, *>
        assertEquals("ok", ((results["entries"] as List<*>).single() as Map<*, *>)["status"])
        assertEquals(1, app.linux.opened)
        controller.get().look("benchmark")
        workedElsewhere()
    }

    @Test
    fun `only runs in the app's own folder are read`() {
        for ((asked, told) in listOf(
            "/data/local/tmp/x/manifest.json" to "is not there", "/sdcard/../../etc/../x y/manifest.json" to "is no run of this app", "manifest.json" to "is no run of this app",
        )) {
            val screen = start(asked).get()
            settle()
            assertTrue(screen.text(R.id.line), screen.text(R.id.line).startsWith("Nothing was measured: ") && told in screen.text(R.id.line))
        }
        assertFalse(File("/data/local/tmp/x").exists())
    }

    @Test
    fun `without an intent it tells what it is for`() {
        val screen = start(null).get()
        settle()
        assertTrue(screen.text(R.id.line).contains("tflite-export benchmark --target android --runner app"))
    }

    @Test
    fun `a manifest that is not understood is told`() {
        val manifest = prepared("bench_8").also { it.writeText("{}") }
        val screen = start(manifest.path).get()
        settle()
        assertEquals("Nothing was measured: manifest.schema is missing", screen.text(R.id.line))
    }
}
